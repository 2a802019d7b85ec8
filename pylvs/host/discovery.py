"""IPv6 neighbour discovery (RFC 4861): answered for own addresses, asked where no host stack would.

+---------------+---------------+-------------------------------+
|  135 or 136   |       0       |           Checksum            |
+-+-+-+---------+---------------+-------------------------------+
|R|S|O|                      reserved                           |
+-+-+-+---------------------------------------------------------+
|                   Target address, 16 bytes                    |
+---------------+---------------+-------------------------------+
| 1: sender's,  |   1: eight    |                               |
| 2: target's   |     bytes     |              MAC              |
+---------------+---------------+-------------------------------+

Every message has hop limit 255, so none has come through a router.  Router solicitations and
advertisements are the host's: the director answers none and sends none.
"""

from typing import Final

from pylvs.forwarding import born
from pylvs.frames import NONE, Reason, Verdict
from pylvs.jit import apart, compiled
from pylvs.tables import neighbours, paths
from pylvs.wire import checksum, ethernet, icmp, ip, ipv6, transport
from pylvs.wire.memory import load_u8, load_u48, store_u48

_HOPS: Final = 255
_TARGET: Final = 8
_OPTION: Final = 24
_SIZE_MIN: Final = 24
_SIZE: Final = 32
_SOURCE_MAC, _TARGET_MAC = 1, 2
_SOLICITED: Final = 0x4000
_OVERRIDE: Final = 0x2000
_OPTIONS_LIMIT: Final = 8

_LINK_LOCAL: Final = -0x0180_0000_0000_0000  # fe80::/64, as a signed half
_LINK_SCOPE: Final = -0x00FE_0000_0000_0000  # ff02::
_ALL_NODES: Final = 1  # ff02::1
_SOLICITED_NODE: Final = 0x1_FF00_0000  # ff02::1:ff00:0/104
_MULTICAST_MAC: Final = 0x3333_0000_0000


@compiled
def is_multicast_mac(mac):
    return mac >> 32 == 0x3333


@compiled
def link_local(mac):
    """Return the address a station has on its link by its MAC alone (RFC 4291, appendix A)."""
    low = ((mac >> 24) << 40) | 0xFF_FE00_0000 | (mac & 0xFF_FFFF)
    return _LINK_LOCAL, low ^ (1 << 57)


@apart
def receive(tables, memory, frame):
    """Return whether an ICMPv6 frame is neighbour discovery, which then has its verdict.

    One that asks for an own address is answered later, as it is forwarded.
    """
    message = frame.transport
    size = frame.packet_size - (message - frame.ip)
    if size < _SIZE_MIN:
        return False
    type_ = load_u8(memory, message + icmp.TYPE)
    if type_ != icmp.V6_SOLICITATION and type_ != icmp.V6_ADVERTISEMENT:
        return False
    frame.verdict = Verdict.PASS
    frame.reason = Reason.ARP_OTHER
    if load_u8(memory, frame.ip + ipv6.HOP_LIMIT) != _HOPS or frame.transport != _body(frame):
        return True
    total = transport.pseudo_header(memory, frame.ip, ipv6.ICMP, size)
    if checksum.fold(checksum.add(memory, message, size, total)) != 0xFFFF:
        return True
    target = ip.load_wide(memory, message + _TARGET)
    source = ip.source_of(memory, frame.ip)
    if ip.is_ipv4(target) or (ip.is_ipv4(source) and not ip.is_none(source)):
        return True
    if type_ == icmp.V6_ADVERTISEMENT:
        _learn(tables, memory, frame, target, _TARGET_MAC)
        return True
    _learn(tables, memory, frame, source, _SOURCE_MAC)
    if _is_own(tables, frame.port_in, target):
        frame.reason = Reason.ARP
    return True


@compiled
def _body(frame):
    return frame.ip + ipv6.HEADER_SIZE


@compiled
def _is_own(tables, port_row, target):
    row = paths.own_row(tables, target)
    if row != NONE:
        return tables.own[row].answers_arp != 0
    port = tables.ports[port_row]
    if not port.own_arp:
        return False
    own = link_local(port.mac)
    return own[0] == target[0] and own[1] == target[1]


@compiled
def _learn(tables, memory, frame, address, kind):
    """Note the MAC a message tells, where the director resolves next hops itself."""
    if not tables.ports[frame.port_in].own_arp:
        return
    neighbour = neighbours.find(tables, frame.port_in, address)
    if neighbour == NONE:
        return
    at = frame.transport + _OPTION
    end = frame.ip + frame.packet_size
    for _ in range(_OPTIONS_LIMIT):
        if at + 8 > end:
            return
        if load_u8(memory, at) == kind:
            mac = load_u48(memory, at + 2)
            if mac & (1 << 40) == 0:
                neighbours.learn(tables, neighbour, mac)
            return
        at += max(8, load_u8(memory, at + 1) << 3)


@apart
def answer(tables, memory, frames, count, frame):
    """Advertise the own address that a solicitation asks for."""
    target = ip.load_wide(memory, frame.transport + _TARGET)
    asker = ip.source_of(memory, frame.ip)
    station = load_u48(memory, frame.offset + ethernet.SOURCE)
    flags = _SOLICITED | _OVERRIDE
    if ip.is_none(asker):  # it looks for a duplicate of its own: everybody is told
        asker = _LINK_SCOPE, _ALL_NODES
        station = _MULTICAST_MAC | _ALL_NODES
        flags = _OVERRIDE
    port_row = frame.port_in
    _write(tables, memory, frames, count, port_row, station, target, asker, flags, target)


@apart
def announce(tables, memory, frames, count, port_row, address):
    """Give birth to an unsolicited advertisement to all; return whether there was room."""
    station, to = _MULTICAST_MAC | _ALL_NODES, (_LINK_SCOPE, _ALL_NODES)
    return _write(tables, memory, frames, count, port_row, station, address, to, _OVERRIDE, address)


@apart
def solicit(tables, memory, frames, count, port_row, station, target):
    """Give birth to a solicitation, to ``station`` alone if it is known, else to whom it concerns.

    Returns whether there was room.
    """
    to = target
    if station == 0:
        last = target[1] & 0xFF_FFFF
        to = _LINK_SCOPE, _SOLICITED_NODE | last
        station = _MULTICAST_MAC | 0xFF00_0000 | last
    source = link_local(tables.ports[port_row].mac)
    return _write(tables, memory, frames, count, port_row, station, source, to, NONE, target)


@apart
def _write(tables, memory, frames, count, port_row, station, source, to, flags, target):
    """Give birth to a message: an advertisement with ``flags``, or a solicitation if ``NONE``."""
    size = ipv6.HEADER_SIZE + _SIZE
    row = born.new(tables, frames, count, ethernet.HEADER_SIZE + size, 6)
    if row == NONE:
        return False
    frame = frames[row]
    mac = tables.ports[port_row].mac
    frame.port_out = port_row
    frame.reason = Reason.ARP
    frame.ip = frame.offset + ethernet.HEADER_SIZE
    frame.packet_size = size
    ethernet.write(memory, frame.offset, station, mac, ethernet.IPV6)
    ipv6.write(memory, frame.ip, 0, size, ipv6.ICMP, _HOPS, source, to)
    message = frame.ip + ipv6.HEADER_SIZE
    ip.store_wide(memory, message + _TARGET, target)
    asks = flags == NONE
    memory[message + _OPTION] = _SOURCE_MAC if asks else _TARGET_MAC
    memory[message + _OPTION + 1] = 1
    store_u48(memory, message + _OPTION + 2, mac)
    kind = icmp.V6_SOLICITATION if asks else icmp.V6_ADVERTISEMENT
    rest = 0 if asks else flags << 16
    icmp.write_ipv6(memory, frame.ip, message, kind, 0, rest, _SIZE)
    return True
