"""Next hops asked for and own addresses announced, by ARP or by neighbour discovery."""

from typing import Final

from numpy import int64

from pylvs.forwarding import born
from pylvs.frames import NONE
from pylvs.host import arp, discovery
from pylvs.jit import compiled
from pylvs.tables import neighbours
from pylvs.tables.addresses import address_of
from pylvs.tables.layouts.network import KNOWN
from pylvs.wire import ethernet, ip, ipv6

RETRY_MS: Final = 1_000  # neigh/*/retrans_time_ms
ATTEMPTS: Final = 3  # neigh/*/mcast_solicit
_MESSAGE_SIZE: Final = ethernet.HEADER_SIZE + ipv6.HEADER_SIZE + 32


@compiled
def solicit(tables, memory, frames, count, now_ms):
    """Ask for the next hops that are unknown or due, where the director resolves them."""
    director = tables.director[0]
    if director.soliciting == 0:
        return
    left = 0
    for row in range(director.neighbour_count):
        neighbour = tables.neighbours[row]
        port = tables.ports[neighbour.port]
        if neighbour.attempts == NONE or not port.own_arp:
            continue
        left += 1
        if now_ms - neighbour.asked_ms < RETRY_MS and neighbour.attempts:
            continue
        if neighbour.attempts == ATTEMPTS:
            neighbours.fail(tables, row)
            left -= 1
            continue
        if _ask(tables, memory, frames, count, neighbour):
            neighbour.attempts += 1
            neighbour.asked_ms = now_ms
    director.soliciting = left


@compiled
def _ask(tables, memory, frames, count, neighbour):
    """Ask the station that is known, or all, for a next hop; return whether there was room."""
    port_row, address = int64(neighbour.port), address_of(neighbour)
    station = neighbour.mac if neighbour.state == KNOWN else 0
    if not ip.is_ipv4(address):
        return discovery.solicit(tables, memory, frames, count, port_row, station, address)
    sender = int64(tables.ports[port_row].address)
    station = station if station else ethernet.BROADCAST
    return arp.request(tables, memory, frames, count, port_row, station, sender, address[1])


@compiled
def announce(tables, memory, frames, count):
    """Announce own addresses on every port with a link layer (RFC 5227; RFC 4861, 7.2.6).

    As many as there is room for; return whether that was all.
    """
    ports = tables.ports.size
    for row in range(tables.director[0].own_count):
        own = tables.own[row]
        if own.announced or not own.answers_arp:
            continue
        if not born.has_room(tables, frames, count, ports, _MESSAGE_SIZE):
            return False
        own.announced = 1
        address = address_of(own)
        for port_row in range(ports):
            port = tables.ports[port_row]
            if not port.up or port.raw_ip:
                continue
            if ip.is_ipv4(address):
                station, sender = ethernet.BROADCAST, address[1]
                arp.request(tables, memory, frames, count, port_row, station, sender, sender)
            else:
                discovery.announce(tables, memory, frames, count, port_row, address)
    return True
