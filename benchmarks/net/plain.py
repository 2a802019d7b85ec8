"""A NAT director in plain Python, a packet a call: plain.py VIP PORT RIP RPORT.

Receives at eth0, rewrites destination and checksums of UDP, sends by eth1: the least there can be.
"""

import pathlib
import socket
import subprocess
import sys

from benchmarks.test_door import plain_python
from pylvs.wire.text import address_of, mac_of

_SO_RCVBUFFORCE = 33


def main(vip: str, port: int, server: str, server_port: int) -> None:
    words = subprocess.run(
        ["ip", "neigh", "show", server], capture_output=True, text=True, check=True
    )
    found = words.stdout.split()
    to = mac_of(found[found.index("lladdr") + 1]).to_bytes(6, "big")
    own = pathlib.Path("/sys/class/net/eth1/address").read_text(encoding="ascii").strip()
    start = to + mac_of(own).to_bytes(6, "big")
    wanted = address_of(vip).to_bytes(4, "big"), port.to_bytes(2, "big")
    near = socket.socket(socket.AF_PACKET, socket.SOCK_RAW, socket.htons(0x0800))
    near.setsockopt(socket.SOL_SOCKET, _SO_RCVBUFFORCE, 1 << 24)
    near.bind(("eth0", 0x0800))
    far = socket.socket(socket.AF_PACKET, socket.SOCK_RAW)
    far.bind(("eth1", 0))
    address = address_of(server)
    buffer = bytearray(2_048)
    print("ready", flush=True)
    while True:
        size = near.recv_into(buffer)
        if (buffer[30:34], buffer[36:38]) != wanted or buffer[23] != 17:
            continue
        plain_python(buffer, address, server_port, udp=True)
        buffer[:12] = start
        far.send(memoryview(buffer)[:size])


if __name__ == "__main__":
    main(sys.argv[1], int(sys.argv[2]), sys.argv[3], int(sys.argv[4]))
