"""L3DSR: requests go to the server's own address, the service in their DSCP field.

    | IP client -> VIP, DSCP any | ... |   ->   | IP client -> RIP, DSCP d | ... |

No tunnel and no common LAN: routers take the packet to the server, which puts the VIP that d stands
for back (``pylvs realserver``) and answers from it.  DSCP is RFC 2474's six bits; the two of ECN
beside them stay.
"""

from typing import Final

from pylvs.forwarding import masquerade
from pylvs.jit import compiled
from pylvs.wire import checksum, icmp, ipv4, transport
from pylvs.wire.memory import load_u16, store_u16

_FIELD_4: Final = 0x3F << 2
_FIELD_6: Final = 0x3F << 6


@compiled
def readdress(tables, memory, frame, entry, dscp):
    """Rewrite VIP to RIP, and mark the packet; of an ICMP error what it quotes stays."""
    if frame.quotes == 0:
        port = load_u16(memory, frame.transport + transport.DESTINATION_PORT)
        masquerade.redirect_to(tables, memory, frame, entry, port)
    else:
        difference = masquerade.redirect(tables, memory, frame, entry)
        if frame.family == 6:  # whose checksum covers addresses
            field = frame.transport + icmp.CHECKSUM
            store_u16(memory, field, checksum.adjust(load_u16(memory, field), difference))
    _mark(memory, frame, dscp)


@compiled
def _mark(memory, frame, dscp):
    old = load_u16(memory, frame.ip)
    if frame.family == 6:
        store_u16(memory, frame.ip, (old & ~_FIELD_6) | dscp << 6)
        return
    new = (old & ~_FIELD_4) | dscp << 2
    store_u16(memory, frame.ip, new)
    field = frame.ip + ipv4.CHECKSUM
    change = checksum.difference_u16(old, new)
    store_u16(memory, field, checksum.adjust(load_u16(memory, field), change))
