"""Is a VIP already somebody's?  Asked before it is claimed.

By ARP (RFC 5227, section 2.1), or by neighbour discovery (RFC 4862, section 5.4).
"""

import errno
import select
import socket
import time
from collections.abc import Iterable
from typing import Final

import dpkt

from pylvs.control.network.groups import group_of
from pylvs.drivers.base import Port
from pylvs.errors import HostError
from pylvs.wire.text import is_ipv6, mac_text

PROBES: Final = 2
WAIT_S: Final = 0.15  # after each probe; a LAN answers within a millisecond


_ARP, _IPV6 = 0x0806, 0x86DD
_SOLICITATION, _ADVERTISEMENT = 135, 136


def _probe(mac: bytes, address: bytes) -> bytes:
    if len(address) == 16:
        return _solicitation(mac, address)
    request = dpkt.arp.ARP(
        sha=mac, spa=bytes(4), tha=bytes(6), tpa=address, op=dpkt.arp.ARP_OP_REQUEST
    )
    ethernet = dpkt.ethernet.Ethernet(
        src=mac, dst=b"\xff" * 6, type=dpkt.ethernet.ETH_TYPE_ARP, data=request
    )
    return bytes(ethernet).ljust(60, b"\0")


def _solicitation(mac: bytes, address: bytes) -> bytes:
    group = group_of(int.from_bytes(address, "big"))
    message = dpkt.icmp6.ICMP6(type=_SOLICITATION, code=0, data=bytes(4) + address)
    packet = dpkt.ip6.IP6(src=bytes(16), dst=group, hlim=255, nxt=58, data=message)
    packet.plen = len(message)
    ethernet = dpkt.ethernet.Ethernet(
        src=mac, dst=b"\x33\x33" + group[12:], type=_IPV6, data=packet
    )
    return bytes(ethernet)


def _answer_of(frame: bytes) -> tuple[bytes, bytes]:
    """Return the address that a frame tells of, and its station's MAC; nothing of others."""
    if frame[12:14] == _ARP.to_bytes(2, "big") and len(frame) >= 42:
        return frame[28:32], frame[22:28]
    if len(frame) >= 78 and frame[20] == 58 and frame[54] == _ADVERTISEMENT:
        return frame[62:78], frame[6:12]
    return b"", b""


def find_conflict(port: Port, addresses: Iterable[int]) -> tuple[int, str] | None:
    """Return (address, MAC as text) of the first of ``addresses`` that a station answers for."""
    wanted: dict[int, dict[bytes, int]] = {_ARP: {}, _IPV6: {}}
    for address in addresses:
        kind, size = (_IPV6, 16) if is_ipv6(address) else (_ARP, 4)
        wanted[kind][address.to_bytes(size, "big")] = address
    try:
        found = (_listen(port, kind, some) for kind, some in wanted.items() if some)
        return next(filter(None, found), None)
    except OSError as error:
        if error.errno == errno.ENETDOWN:  # nobody can be asked, and nobody can be in the way
            return None
        raise HostError(f"cannot ask who owns the VIPs on {port.name}: {error.strerror}") from None


def _listen(port: Port, kind: int, wanted: dict[bytes, int]) -> tuple[int, str] | None:
    mac = port.mac.to_bytes(6, "big")
    with socket.socket(socket.AF_PACKET, socket.SOCK_RAW, socket.htons(kind)) as probe:
        probe.bind((port.name, kind))
        for _ in range(PROBES):
            for address in wanted:
                probe.send(_probe(mac, address))
            end = time.monotonic() + WAIT_S
            while (left := end - time.monotonic()) > 0:
                if not select.select([probe], [], [], left)[0]:
                    break
                frame, where = probe.recvfrom(2048)
                if where[2] == socket.PACKET_OUTGOING:
                    continue
                address, sender = _answer_of(frame)
                if address in wanted and sender != mac:
                    return wanted[address], mac_text(int.from_bytes(sender, "big"))
    return None
