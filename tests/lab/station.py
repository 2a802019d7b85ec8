"""A server that tells who it is and what it received, over TCP and UDP, and its client.

station.py serve NAME PORT [proxy]
                                 TCP: reads to the end, answers with digest, name and client;
                                 by PROXY's header in front, if it is said that there is one
                                 TCP starting with GIVE: sends that many known bytes
                                 UDP: answers with name and client
station.py upload|download HOST PORT BYTES
station.py datagram HOST PORT COUNT [BYTES]
station.py talk HOST PORT COUNT [BYTES]      from one port, 500 a second
"""

import contextlib
import hashlib
import random
import socket
import socketserver
import sys
import threading
import time


def known_bytes(size):
    return random.Random(size).randbytes(size)


def sender(handler):
    return handler.client_address[0].removeprefix("::ffff:")


class Stream(socketserver.BaseRequestHandler):
    def handle(self):
        client = (self.server.has_header and self.read_header()) or sender(self)
        digest = hashlib.sha256()
        first = self.request.recv(65_536)
        if first.startswith(b"GIVE "):
            self.request.sendall(known_bytes(int(first[5:])))
            return
        while first:
            digest.update(first)
            first = self.request.recv(65_536)
        answer = f"{digest.hexdigest()} {self.server.name} {client}\n"
        self.request.sendall(answer.encode())

    def read_header(self):
        """Return the client that PROXY's header tells, and whom it spoke to."""
        head = self.request.recv(16, socket.MSG_WAITALL)
        assert head[:13] == b"\r\n\r\n\0\r\nQUIT\n\x21", head
        body = self.request.recv(int.from_bytes(head[14:16], "big"), socket.MSG_WAITALL)
        size = {0x11: 4, 0x21: 16}[head[13]]
        family = socket.AF_INET if size == 4 else socket.AF_INET6
        hosts = [socket.inet_ntop(family, body[at : at + size]) for at in (0, size)]
        return f"{hosts[0]} {hosts[1]} {int.from_bytes(body[2 * size + 2 :], 'big')}"


class Datagram(socketserver.BaseRequestHandler):
    def handle(self):
        data, opened = self.request
        answer = f"{self.server.name} {sender(self)} {len(data)}"
        opened.sendto(answer.encode(), self.client_address)


class StreamServer(socketserver.ThreadingTCPServer):
    address_family = socket.AF_INET6  # and IPv4 through it
    allow_reuse_address = True
    request_queue_size = 512


def serve(name, port, *options):
    servers = (StreamServer(("::", port), Stream), AnsweringUdpServer(("::", port), Datagram))
    for server in servers:
        server.name = name
        server.has_header = "proxy" in options
        threading.Thread(target=server.serve_forever).start()


class AnsweringUdpServer(socketserver.UDPServer):
    """Answers from the address that was asked (a VIP is not the host's first address)."""

    address_family = socket.AF_INET6

    def get_request(self):
        data, ancillary, _, client = self.socket.recvmsg(65_536, 64)
        wanted = socket.IPPROTO_IPV6, socket.IPV6_PKTINFO
        to = next(info[:16] for level, kind, info in ancillary if (level, kind) == wanted)
        return (data, _From(self.socket, to)), client

    def server_bind(self):
        self.socket.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_RECVPKTINFO, 1)
        super().server_bind()


class _From:
    def __init__(self, opened, address):
        self.opened, self.address = opened, address

    def sendto(self, data, client):
        info = self.address + bytes(4)
        source = socket.IPPROTO_IPV6, socket.IPV6_PKTINFO, info
        self.opened.sendmsg([data], [source], 0, client)


def upload(host, port, size, seconds=0):
    """Send known bytes, at once or spread over some seconds."""
    data, pieces = known_bytes(size), 100 if seconds else 1
    with socket.create_connection((host, port), 10) as stream:
        stream.settimeout(60)
        for piece in range(pieces):
            stream.sendall(data[size * piece // pieces : size * (piece + 1) // pieces])
            time.sleep(seconds / pieces)
        stream.shutdown(socket.SHUT_WR)
        answer = stream.makefile().readline().split()
    want = hashlib.sha256(data).hexdigest()
    print("same" if answer[0] == want else "different", *answer[1:])


def download(host, port, size):
    with socket.create_connection((host, port), 10) as stream:
        stream.settimeout(60)
        stream.sendall(f"GIVE {size}".encode())
        got = stream.makefile("rb").read()
    print("same" if got == known_bytes(size) else f"different: {len(got)} bytes")


def datagram(host, port, count, size=10):
    for _ in range(count):
        family = socket.AF_INET6 if ":" in host else socket.AF_INET
        with socket.socket(family, socket.SOCK_DGRAM) as one:
            one.settimeout(5)
            one.sendto(bytes(size), (host, port))
            print(one.recv(65_536).decode())


def talk(host, port, count, size=20):
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    with socket.socket(family, socket.SOCK_DGRAM) as one:
        one.settimeout(0.2)
        one.connect((host, port))
        answered = 0
        for _ in range(count):
            one.send(bytes(size))
            with contextlib.suppress(TimeoutError):
                one.recv(65_536)
                answered += 1
            time.sleep(0.002)
    print(answered)


if __name__ == "__main__":
    action, *rest = sys.argv[1:]
    if action == "serve":
        serve(rest[0], int(rest[1]), *rest[2:])
    else:
        {"upload": upload, "download": download, "datagram": datagram, "talk": talk}[action](
            rest[0], *map(int, rest[1:])
        )
