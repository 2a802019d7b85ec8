"""The far end of a tunnel where the kernel has no ipip: a TUN device fed from raw sockets.

    IP in IP -> raw socket (protocol 4 or 41) -> outer header off -> TUN device -> the host's stack
          +---> ``early_end``, if told -------------------------------^

A device takes the packets of one IP, whatever they come in, so that two on a host do not hear each
other's.
"""

import contextlib
import errno
import os
import select
import socket
import sys
from typing import Final

from pytun_pmd3 import TunTapDevice
from pytun_pmd3.linux import IFF_NO_PI, IFF_TUN

_PROTOCOLS: Final = {4: 4, 6: 41}  # by the version of what is inside
_RECEIVE_BUFFER: Final = 8 << 20


def decapsulate(name: str, version: int, early: bool = False) -> None:
    """Make TUN device ``name`` and feed it packets of an IP version until it goes away."""
    with contextlib.ExitStack() as stack:
        poller = select.poll()
        raws = {}
        for family in (socket.AF_INET, socket.AF_INET6):
            try:
                raw = socket.socket(family, socket.SOCK_RAW, _PROTOCOLS[version])
            except OSError as error:
                if error.errno != errno.EAFNOSUPPORT:  # a kernel without IPv6
                    raise
                continue
            stack.enter_context(raw)
            raw.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, _RECEIVE_BUFFER)
            raws[raw.fileno()] = raw
            poller.register(raw, select.POLLIN)
        device = TunTapDevice(name=name, flags=IFF_TUN | IFF_NO_PI)
        device.up()
        poller.register(device.fileno(), select.POLLIN)
        if early:
            from pylvs.lab import early_end  # and with it numba, which a real server does not need

            for link in early_end.attach(name, version):
                stack.callback(os.close, link)
        buffer = bytearray(65_535)
        view = memoryview(buffer)
        while True:
            for number, _ in poller.poll():
                if number == device.fileno():
                    try:
                        device.read(len(buffer))  # nobody wants what the host sends there
                    except OSError:
                        return  # the device was deleted: that is how it ends
                    continue
                raw = raws[number]
                size = raw.recv_into(buffer)
                # An IPv6 raw socket leaves the outer header out itself.
                inner = (buffer[0] & 0xF) * 4 if raw.family == socket.AF_INET else 0
                try:
                    device.write(bytes(view[inner:size]))
                except OSError as error:
                    if error.errno != errno.EINVAL:  # EINVAL: no IP packet was inside
                        return


if __name__ == "__main__":
    decapsulate(sys.argv[1], int(sys.argv[2]), "early" in sys.argv[3:])
