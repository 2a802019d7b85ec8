"""Which interfaces take frames straight from XDP, by generic netlink (``netdev``, Linux 6.3).

A veth does as long as its peer has NAPI: an XDP program of its own, or GRO switched on.  A card
does whose driver can; with many, a processor sends by the queue of its number, so that those beyond
have none.  What is sent to others is lost, so who ceases is heard of at once.
Source: Documentation/netlink/specs/netdev.yaml.
"""

import contextlib
import errno
import logging
import socket
from collections.abc import Collection
from typing import Any, Final

from pyroute2.netlink import NLM_F_DUMP, NLM_F_REQUEST, genlmsg
from pyroute2.netlink.exceptions import NetlinkError
from pyroute2.netlink.generic import GenericNetlinkSocket

from pylvs.drivers.xdp import is_card, queues_of

log = logging.getLogger("pylvs.network")

_DEVICE_GET: Final = 1
_NDO_XMIT: Final = 0x04
_GROUP: Final = "mgmt"
_NETLINK_GENERIC, _SOL_NETLINK, _ADD_MEMBERSHIP = 16, 270, 1
_SIZE: Final = 65_536
_ALL: Final = 2**31 - 1


class _Device(genlmsg):  # type: ignore[misc]
    nla_map = (
        ("NETDEV_A_DEV_UNSPEC", "none"),
        ("NETDEV_A_DEV_IFINDEX", "uint32"),
        ("NETDEV_A_DEV_PAD", "none"),
        ("NETDEV_A_DEV_XDP_FEATURES", "uint64"),
    )


def _processors(name: str) -> int:
    """Return from how many processors an interface takes frames that takes any."""
    return min(queues_of(name, "rx"), queues_of(name, "tx")) if is_card(name) else _ALL


def _features(device: Any) -> int:
    return device.get_attr("NETDEV_A_DEV_XDP_FEATURES") or 0


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
        except (NetlinkError, OSError, KeyError) as error:  # no such family
            log.info("who takes frames from XDP is not known: %s", error)
            self._asked.close()
            self._asked = None

    def read(self, indices: Collection[int]) -> dict[int, int]:
        """Return from how many processors each of some interfaces takes frames."""
        if self._asked is None:
            return {}
        request = _Device()
        request["cmd"], request["version"] = _DEVICE_GET, 1
        flags = NLM_F_REQUEST | NLM_F_DUMP
        able = {}
        try:
            for one in self._asked.nlm_request(request, self._asked.prid, flags):
                index = int(one.get_attr("NETDEV_A_DEV_IFINDEX"))
                if index in indices and _features(one) & _NDO_XMIT:
                    able[index] = _processors(socket.if_indextoname(index))
        except (NetlinkError, OSError) as error:  # it costs speed alone
            log.warning("who takes frames from XDP is not known: %s", error)
            return {}
        return able

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
