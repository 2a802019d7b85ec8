"""ARP (RFC 826, RFC 5227): answered for own addresses, asked where no host stack would."""

from pylvs.forwarding import born
from pylvs.frames import NONE, Reason, Verdict
from pylvs.jit import apart, compiled
from pylvs.tables import neighbours, paths
from pylvs.wire import arp, ethernet, ip
from pylvs.wire.memory import load_u16, load_u32, load_u48


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
        neighbour = neighbours.find(tables, frame.port_in, ip.from_ipv4(sender))
        if neighbour != NONE:
            neighbours.learn(tables, neighbour, mac)
    target = load_u32(memory, at + arp.TARGET_ADDRESS)
    row = paths.own_row(tables, ip.from_ipv4(target))
    if row == NONE or not tables.own[row].answers_arp or sender == target:
        return
    frame.reason = Reason.ARP
    if load_u16(memory, at + arp.OPERATION) != arp.REQUEST:
        return
    arp.write(memory, at, arp.REPLY, port.mac, target, mac, sender)
    ethernet.write(memory, frame.offset, mac, port.mac, ethernet.ARP)
    frame.port_out = frame.port_in
    frame.verdict = Verdict.TRANSMIT


@apart
def request(tables, memory, frames, count, port_row, station, sender, target):
    """Give birth to an ARP request to one station or all; return whether there was room."""
    row = born.new(tables, frames, count, ethernet.SIZE_MIN, 4)
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
