"""Names of hosts and services, both ways.

``NUMERIC`` knows none: what rules files, captures and ``-n`` ask for.  ``SystemNames`` asks the
system's resolver, as ipvsadm does, and may wait for it.
"""

import contextlib
import socket
from typing import Final

from pylvs.wire.text import address_of, address_text

PROTOCOL_BY_NUMBER: Final = {6: "tcp", 17: "udp", 132: "sctp"}


class Names:
    """Numbers only; addresses are ints in host order."""

    def address_of(self, text: str) -> int:
        """Return a host's address; raises ValueError."""
        return address_of(text)

    def port_of(self, text: str, protocol: int) -> int:
        """Return a service's port; raises ValueError."""
        raise ValueError(f"{text!r} is not a port")

    def host(self, address: int) -> str:
        return address_text(address)

    def service(self, port: int, protocol: int) -> str:
        return str(port)


class SystemNames(Names):
    """The system's: /etc/hosts and DNS, /etc/services.  One object asks once for each host."""

    def __init__(self) -> None:
        self._hosts: dict[int, str] = {}

    def address_of(self, text: str) -> int:
        try:
            return super().address_of(text)
        except ValueError:
            if text.isdigit():
                raise
        for family in (socket.AF_INET, socket.AF_INET6):
            with contextlib.suppress(OSError, UnicodeError):
                return address_of(str(socket.getaddrinfo(text, None, family)[0][4][0]))
        raise ValueError(f"{text!r} is not a host")

    def port_of(self, text: str, protocol: int) -> int:
        try:
            return socket.getservbyname(text, PROTOCOL_BY_NUMBER.get(protocol, "tcp"))
        except OSError:
            raise ValueError(f"{text!r} is not a service") from None

    def host(self, address: int) -> str:
        if address not in self._hosts:
            self._hosts[address] = _name_of(address)
        return self._hosts[address]

    def service(self, port: int, protocol: int) -> str:
        try:
            return socket.getservbyport(port, PROTOCOL_BY_NUMBER.get(protocol, "tcp"))
        except OSError:
            return str(port)


def _name_of(address: int) -> str:
    try:
        return socket.gethostbyaddr(address_text(address))[0]
    except OSError:
        return address_text(address)


NUMERIC: Final = Names()
