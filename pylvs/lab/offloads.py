"""Turn an interface's transmit checksum offload off (``ethtool -K IFACE tx off``, by ioctl)."""

import fcntl
import socket
import struct
import sys
from ctypes import addressof, create_string_buffer

_SIOCETHTOOL = 0x8946
_ETHTOOL_STXCSUM = 0x17


def finish_checksums(interface: str) -> None:
    switch(interface, _ETHTOOL_STXCSUM, 0)


def switch(interface: str, offload: int, on: int) -> None:
    """Turn an offload on or off, by its ``ETHTOOL_S...`` (linux/ethtool.h)."""
    value = create_string_buffer(struct.pack("II", offload, on))
    request = struct.pack("16sP", interface.encode(), addressof(value))
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as any_socket:
        fcntl.ioctl(any_socket, _SIOCETHTOOL, request)


if __name__ == "__main__":
    finish_checksums(sys.argv[1])
