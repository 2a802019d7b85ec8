"""Send COUNT random and damaged frames to a MAC: hostile.py INTERFACE MAC VIP COUNT."""

import random
import socket
import sys

from tests.packets import MAC_A, arp, tcp_frame, udp_frame


def main(interface, mac, vip, count):
    target = bytes.fromhex(mac.replace(":", ""))
    rng = random.Random(count)
    valid = [
        tcp_frame("110.0.0.9", vip, 40_000, 80, "A"),
        udp_frame("110.0.0.9", vip, 40_000, 80),
        tcp_frame("192.168.79.129", "110.0.0.1", 8080, 40_000, "SA"),
        arp(1, MAC_A, "203.0.113.9", bytes(6), vip),
        tcp_frame("2001:db8:c::9", "2001:db8:f::47", 40_000, 80, "A"),
        udp_frame("2001:db8:c::9", "2001:db8:f::47", 40_000, 80),
    ]
    with socket.socket(socket.AF_PACKET, socket.SOCK_RAW) as out:
        out.bind((interface, 0))
        for n in range(count):
            if n % 3 == 0:
                frame = bytearray(rng.randbytes(rng.randint(14, 200)))
                frame[12:14] = rng.choice((b"\x08\x00", b"\x08\x00", b"\x08\x06", b"\x86\xdd"))
            else:
                frame = bytearray(rng.choice(valid))
                for _ in range(rng.randint(1, 6)):
                    frame[rng.randrange(14, len(frame))] = rng.randrange(256)
                frame = frame[: rng.randint(20, len(frame))]
            frame[:12] = target + MAC_A
            out.send(frame)


if __name__ == "__main__":
    main(*sys.argv[1:4], int(sys.argv[4]))
