"""Membership in the multicast groups that neighbour solicitations for IPv6 VIPs go to.

A solicitation is for a group made of the wanted address's last three bytes.  The host is no member,
since the VIPs are not its own: a switch that listens in (MLD snooping), or a network card's filter,
would keep solicitations from the director's rings.  So it joins, by an ordinary socket.
"""

import contextlib
import errno
import socket
import struct
from collections.abc import Collection
from typing import Final

from pylvs.errors import HostError
from pylvs.wire.text import is_ipv6

_SOLICITED_NODE: Final = 0xFF02_0000_0000_0000_0000_0001_FF00_0000


def group_of(address: int) -> bytes:
    """Return the solicited-node multicast address of an IPv6 address (RFC 4291, section 2.7.1)."""
    return (_SOLICITED_NODE | address & 0xFF_FFFF).to_bytes(16, "big")


class Groups:
    """What the director has joined, on all of its interfaces; not thread-safe."""

    def __init__(self) -> None:
        self._sockets: list[socket.socket] = []
        self._joined: dict[tuple[int, bytes], socket.socket] = {}

    def follow(self, interfaces: Collection[int], addresses: Collection[int]) -> None:
        """Be a member for these addresses on the interfaces with these indices, and no others."""
        groups = {group_of(address) for address in addresses if is_ipv6(address)}
        wanted = {(index, group) for index in interfaces for group in groups}
        for key in self._joined.keys() - wanted:
            opened = self._joined.pop(key)
            with contextlib.suppress(OSError):  # with its interface it is gone already
                self._change(opened, socket.IPV6_LEAVE_GROUP, key)
        for key in wanted - self._joined.keys():
            self._join(key)

    def _change(self, opened: socket.socket, option: int, key: tuple[int, bytes]) -> None:
        index, group = key
        opened.setsockopt(socket.IPPROTO_IPV6, option, group + struct.pack("@I", index))

    def _join(self, key: tuple[int, bytes]) -> None:
        try:
            if not self._sockets:
                self._open()
            try:
                self._change(self._sockets[-1], socket.IPV6_JOIN_GROUP, key)
            except OSError as error:
                if error.errno not in (errno.ENOBUFS, errno.ENOMEM):
                    raise
                self._open()  # a socket holds so many (net.core.optmem_max)
                self._change(self._sockets[-1], socket.IPV6_JOIN_GROUP, key)
        except OSError as error:
            # Gone meanwhile, or joined; or an interface without IPv6.
            if error.errno in (errno.ENODEV, errno.EADDRINUSE, errno.EINVAL):
                return
            text = socket.inet_ntop(socket.AF_INET6, key[1])
            raise HostError(f"cannot join {text}: {error.strerror}") from None
        self._joined[key] = self._sockets[-1]

    def _open(self) -> None:
        self._sockets.append(socket.socket(socket.AF_INET6, socket.SOCK_DGRAM))

    def close(self) -> None:
        """Leave all of them."""
        for opened in self._sockets:
            opened.close()
        self._sockets.clear()
        self._joined.clear()
