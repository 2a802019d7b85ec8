"""ARP (RFC 826, RFC 5227): answered for own addresses, asked where no host stack would."""

from typing import Final

from numpy import int64

from pylvs.forwarding import born
from pylvs.frames import NONE, Reason, Verdict
from pylvs.jit import compiled
from pylvs.tables import neighbours, paths
from pylvs.tables.layouts import KNOWN
from pylvs.wire import arp, ethernet
from pylvs.wire.memory import load_u16, load_u32, load_u48

RETRY_MS: Final = 1_000  # neigh/*/retrans_time_ms
ATTEMPTS: Final = 3  # neigh/*/mcast_solicit


@compiled
def receive(tables, memory, frame):
    """Learn from an ARP packet, and answer it in place if it asks for one of our own addresses."""
    frame.verdict = Verdict.PASS
    frame.reason = Reason.ARP_OTHER
    at = frame.offset + ethernet.HEADER_SIZE
    if frame.length < ethernet.HEADER_SIZE + arp.SIZE or not arp.is_ethernet_ipv4(memory, at):
        return
    port = tables.ports[frame.port_in]
    mac = load_u48(memory, at + arp.SENDER_MAC)
    sender = load_u32(memory, at + arp.SENDER_ADDRESS)
    if port.own_arp and mac & (1 << 40) == 0:
        neighbour = neighbours.find(tables, frame.port_in, sender)
        if neighbour != NONE:
            neighbours.learn(tables, neighbour, mac)
    target = load_u32(memory, at + arp.TARGET_ADDRESS)
    row = paths.own_row(tables, target)
    if row == NONE or not tables.own[row].answers_arp or sender == target:
        return
    frame.reason = Reason.ARP
    if load_u16(memory, at + arp.OPERATION) != arp.REQUEST:
        return
    arp.write(memory, at, arp.REPLY, port.mac, target, mac, sender)
    ethernet.write(memory, frame.offset, mac, port.mac, ethernet.ARP)
    frame.port_out = frame.port_in
    frame.verdict = Verdict.TRANSMIT


@compiled
def _request(tables, memory, frames, count, port_row, station, sender, target):
    """Give birth to an ARP request to one station or all; return whether there was room."""
    row = born.new(tables, frames, count, ethernet.SIZE_MIN)
    if row == NONE:
        return False
    frame = frames[row]
    mac = tables.ports[port_row].mac
    frame.port_out = port_row
    frame.reason = Reason.ARP
    memory[frame.offset : frame.offset + ethernet.SIZE_MIN] = 0
    ethernet.write(memory, frame.offset, station, mac, ethernet.ARP)
    at = frame.offset + ethernet.HEADER_SIZE
    arp.write(memory, at, arp.REQUEST, mac, sender, 0, target)
    return True


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
        station = neighbour.mac if neighbour.state == KNOWN else ethernet.BROADCAST
        sender, target = int64(port.address), int64(neighbour.address)
        port_row = int64(neighbour.port)
        if _request(tables, memory, frames, count, port_row, station, sender, target):
            neighbour.attempts += 1
            neighbour.asked_ms = now_ms
    director.soliciting = left


@compiled
def announce(tables, memory, frames, count):
    """Announce own addresses that answer ARP on every port with a link layer (RFC 5227).

    As many as there is room for; return whether that was all.
    """
    ports = tables.ports.size
    for row in range(tables.director[0].own_count):
        own = tables.own[row]
        if own.announced or not own.answers_arp:
            continue
        if not born.has_room(tables, frames, count, ports, ethernet.SIZE_MIN):
            return False
        own.announced = 1
        address = int64(own.address)
        for port_row in range(ports):
            port = tables.ports[port_row]
            if port.up and not port.raw_ip:
                station = ethernet.BROADCAST
                _request(tables, memory, frames, count, port_row, station, address, address)
    return True
