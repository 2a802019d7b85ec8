"""The smallest web server that says who it is, for hosts without nginx."""

import pathlib
import socket
import sys
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer


def has_ipv6() -> bool:
    """Whether this host's kernel has IPv6."""
    return pathlib.Path("/proc/net/if_inet6").exists()


def serve(name: str, port: int) -> None:
    """Answer every GET with ``name`` until killed."""

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            body = f"{name}\n".encode()
            self.send_response(200)
            self.send_header("Content-Type", "text/plain")
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, format: str, *args: object) -> None:  # noqa: A002
            pass

    class Server(ThreadingHTTPServer):
        address_family = socket.AF_INET6 if has_ipv6() else socket.AF_INET

    Server(("::" if has_ipv6() else "", port), Handler).serve_forever()  # "::" is IPv4's too


if __name__ == "__main__":
    serve(sys.argv[1], int(sys.argv[2]))
