"""The far end of a tunnel where the kernel has no ipip: a TUN device fed from a raw socket.

IPIP datagram -> raw socket (protocol 4) -> outer header off -> TUN device -> the host's stack
"""

import errno
import socket
import sys

from pytun_pmd3 import TunTapDevice
from pytun_pmd3.linux import IFF_NO_PI, IFF_TUN

_IPIP = 4
_RECEIVE_BUFFER = 8 << 20


def decapsulate(name: str) -> None:
    """Make TUN device ``name`` and feed it until it goes away."""
    with socket.socket(socket.AF_INET, socket.SOCK_RAW, _IPIP) as raw:
        raw.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, _RECEIVE_BUFFER)
        device = TunTapDevice(name=name, flags=IFF_TUN | IFF_NO_PI)
        device.up()
        buffer = bytearray(65_535)
        view = memoryview(buffer)
        while True:
            size = raw.recv_into(buffer)
            inner = (buffer[0] & 0xF) * 4
            try:
                device.write(bytes(view[inner:size]))
            except OSError as error:
                if error.errno != errno.EINVAL:  # EINVAL: no IP packet was inside
                    return  # the device was deleted: that is how it ends


if __name__ == "__main__":
    decapsulate(sys.argv[1])
