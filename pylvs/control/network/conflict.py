"""Is a VIP already somebody's?  Asked by ARP before it is claimed (RFC 5227, section 2.1)."""

import errno
import select
import socket
import time
from collections.abc import Iterable
from typing import Final

import dpkt

from pylvs.drivers.base import Port
from pylvs.errors import HostError
from pylvs.wire.text import mac_text

PROBES: Final = 2
WAIT_S: Final = 0.15  # after each probe; a LAN answers within a millisecond


def _probe(mac: bytes, address: bytes) -> bytes:
    request = dpkt.arp.ARP(
        sha=mac, spa=bytes(4), tha=bytes(6), tpa=address, op=dpkt.arp.ARP_OP_REQUEST
    )
    ethernet = dpkt.ethernet.Ethernet(
        src=mac, dst=b"\xff" * 6, type=dpkt.ethernet.ETH_TYPE_ARP, data=request
    )
    return bytes(ethernet).ljust(60, b"\0")


def find_conflict(port: Port, addresses: Iterable[int]) -> tuple[int, str] | None:
    """Return (address, MAC as text) of the first of ``addresses`` that a station answers for."""
    wanted = {address.to_bytes(4, "big"): address for address in addresses}
    if not wanted:
        return None
    try:
        return _listen(port, wanted)
    except OSError as error:
        if error.errno == errno.ENETDOWN:  # nobody can be asked, and nobody can be in the way
            return None
        raise HostError(f"cannot ask who owns the VIPs on {port.name}: {error.strerror}") from None


def _listen(port: Port, wanted: dict[bytes, int]) -> tuple[int, str] | None:
    mac = port.mac.to_bytes(6, "big")
    with socket.socket(socket.AF_PACKET, socket.SOCK_RAW, socket.htons(0x0806)) as probe:
        probe.bind((port.name, 0x0806))
        for _ in range(PROBES):
            for address in wanted:
                probe.send(_probe(mac, address))
            end = time.monotonic() + WAIT_S
            while (left := end - time.monotonic()) > 0:
                if not select.select([probe], [], [], left)[0]:
                    break
                frame, where = probe.recvfrom(2048)
                if where[2] == socket.PACKET_OUTGOING or len(frame) < 42:
                    continue
                sender, address = frame[22:28], frame[28:32]
                if address in wanted and sender != mac:
                    return wanted[address], mac_text(int.from_bytes(sender, "big"))
    return None
