"""Which interfaces take frames straight from XDP, by generic netlink (``netdev``, Linux 6.3).

A card does whose driver can, a veth as long as its peer has NAPI: an XDP program of its own, or
GRO switched on.  What is sent to others is lost, so who ceases is heard of at once.
Source: Documentation/netlink/specs/netdev.yaml.
"""

import contextlib
import errno
import socket
from typing import Final

from pyroute2.netlink import NLM_F_DUMP, NLM_F_REQUEST, genlmsg
from pyroute2.netlink.exceptions import NetlinkError
from pyroute2.netlink.generic import GenericNetlinkSocket

_DEVICE_GET: Final = 1
_NDO_XMIT: Final = 0x04
_GROUP: Final = "mgmt"
_NETLINK_GENERIC, _SOL_NETLINK, _ADD_MEMBERSHIP = 16, 270, 1
_SIZE: Final = 65_536


class _Device(genlmsg):  # type: ignore[misc]
    nla_map = (
        ("NETDEV_A_DEV_UNSPEC", "none"),
        ("NETDEV_A_DEV_IFINDEX", "uint32"),
        ("NETDEV_A_DEV_PAD", "none"),
        ("NETDEV_A_DEV_XDP_FEATURES", "uint64"),
    )


class Redirects:
    """Knows them by their indices; of a kernel that does not tell, none."""

    def __init__(self) -> None:
        self.events = socket.socket(
            socket.AF_NETLINK, socket.SOCK_RAW | socket.SOCK_NONBLOCK, _NETLINK_GENERIC
        )
        self.events.bind((0, 0))
        self._asked: GenericNetlinkSocket | None = GenericNetlinkSocket()
        try:
            self._asked.bind("netdev", _Device)
            group = self._asked.mcast_groups[_GROUP]
            self.events.setsockopt(_SOL_NETLINK, _ADD_MEMBERSHIP, group)
        except (NetlinkError, KeyError):  # no such family
            self._asked.close()
            self._asked = None

    def read(self) -> frozenset[int]:
        """Return the indices of those that do."""
        if self._asked is None:
            return frozenset()
        request = _Device()
        request["cmd"], request["version"] = _DEVICE_GET, 1
        answers = self._asked.nlm_request(
            request, msg_type=self._asked.prid, msg_flags=NLM_F_REQUEST | NLM_F_DUMP
        )
        return frozenset(
            int(one.get_attr("NETDEV_A_DEV_IFINDEX"))
            for one in answers
            if int(one.get_attr("NETDEV_A_DEV_XDP_FEATURES") or 0) & _NDO_XMIT
        )

    def drain(self) -> bool:
        """Take the notifications that wait; return whether there were any."""
        heard = False
        with contextlib.suppress(BlockingIOError):
            while True:
                try:
                    self.events.recv(_SIZE)
                except OSError as error:
                    if error.errno != errno.ENOBUFS:  # some were lost: that is news as well
                        raise
                heard = True
        return heard

    def close(self) -> None:
        self.events.close()
        if self._asked is not None:
            self._asked.close()
