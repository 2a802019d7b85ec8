"""Send 60-byte UDP frames as fast as one core can: flood.py INTERFACE MAC SOURCE VIP PORT SECONDS.

Prints how many were sent.  Runs inside a namespace of a lab, and stops by itself.
"""

import pathlib
import socket
import sys
import time

import numpy as np

from pylvs.drivers import linux
from pylvs.jit import door
from tests.packets import ethernet, ipv4, udp

BURST = 1_000


@door
def send_burst(descriptor, address, size, count):
    """Send one frame ``count`` times; return how many the kernel took."""
    sent = 0
    for _ in range(count):
        if linux.sendto(descriptor, address, size, 0, 0, 0) > 0:
            sent += 1
    return sent


def main(interface, mac, source, vip, port, seconds):
    datagram = udp(source, vip, 40_000, port, bytes(18))
    address = pathlib.Path(f"/sys/class/net/{interface}/address").read_text()
    own = bytes.fromhex(address.strip().replace(":", ""))
    frame = ethernet(ipv4(source, vip, 17, datagram), bytes.fromhex(mac.replace(":", "")), own)
    memory = np.frombuffer(frame, np.uint8).copy()
    with socket.socket(socket.AF_PACKET, socket.SOCK_RAW) as out:
        out.bind((interface, 0))
        out.setsockopt(linux.SOL_PACKET, linux.PACKET_QDISC_BYPASS, 1)
        send_burst(out.fileno(), memory.ctypes.data, len(frame), 1)
        sent = 0
        end = time.monotonic() + seconds
        while time.monotonic() < end:
            sent += send_burst(out.fileno(), memory.ctypes.data, len(frame), BURST)
    print(sent)


if __name__ == "__main__":
    main(*sys.argv[1:5], int(sys.argv[5]), float(sys.argv[6]))
