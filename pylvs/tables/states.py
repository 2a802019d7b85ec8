"""Protocol state machines, as Linux prints them (ip_vs_proto_tcp.c, ip_vs_proto_udp.c).

A TCP packet is one of four events, the first that applies: RST, SYN, FIN, ACK; one with none of
these flags closes the connection.  Which table applies depends on what the director sees: replies
too (NAT), a reply itself, or the client's half only (DR and TUN).
"""

from typing import Any, Final

import numpy as np
from numpy import int64

from pylvs.jit import compiled
from pylvs.wire import ipv4, transport

# fmt: off
(NO, ES, SS, SR, FW, TW, CL, CW, LA, LI, SA) = range(11)

STATE_NAMES: Final = {
    ipv4.TCP: (
        "NONE", "ESTABLISHED", "SYN_SENT", "SYN_RECV", "FIN_WAIT", "TIME_WAIT", "CLOSE",
        "CLOSE_WAIT", "LAST_ACK", "LISTEN", "SYNACK",
    ),
    ipv4.UDP: ("UDP",),
}

SYN_EVENT, FIN_EVENT, ACK_EVENT, RST_EVENT = range(4)
SEES_INPUT: Final = 0
SEES_OUTPUT: Final = 1
SEES_INPUT_ONLY: Final = 2

TRANSITIONS: Final = np.array([
    [  # INPUT       NO  ES  SS  SR  FW  TW  CL  CW  LA  LI  SA
        [            SR, ES, ES, SR, SR, SR, SR, SR, SR, SR, SR],  # SYN
        [            CL, CW, SS, TW, TW, TW, CL, CW, LA, LI, TW],  # FIN
        [            ES, ES, SS, ES, FW, TW, CL, CW, CL, LI, ES],  # ACK
        [            CL, CL, CL, SR, CL, CL, CL, CL, LA, LI, SR],  # RST
    ],
    [  # OUTPUT      NO  ES  SS  SR  FW  TW  CL  CW  LA  LI  SA
        [            SS, ES, SS, SR, SS, SS, SS, SS, SS, LI, SR],
        [            TW, FW, SS, TW, FW, TW, CL, TW, LA, LI, TW],
        [            ES, ES, SS, ES, FW, TW, CL, CW, LA, ES, ES],
        [            CL, CL, SS, CL, CL, TW, CL, CL, CL, CL, CL],
    ],
    [  # INPUT ONLY  NO  ES  SS  SR  FW  TW  CL  CW  LA  LI  SA
        [            SR, ES, ES, SR, SR, SR, SR, SR, SR, SR, SR],
        [            CL, FW, SS, TW, FW, TW, CL, CW, LA, LI, TW],
        [            ES, ES, SS, ES, FW, TW, CL, CW, CL, LI, ES],
        [            CL, CL, CL, SR, CL, CL, CL, CL, LA, LI, CL],
    ],
], np.int8)

# Seconds, by state (ip_vs_proto_tcp.c, tcp_timeouts[], as of 6.1).
TCP_TIMEOUTS: Final = (2, 900, 120, 60, 120, 120, 10, 60, 30, 120, 120)
UDP_TIMEOUT: Final = 300
# fmt: on

NEW_TIMEOUT_MS: Final = 3_000  # until the first packet has run the state machine


@compiled
def next_tcp_state(flags, state, view):
    """Return the state after a packet with these TCP flags; ``view`` is one of SEES_*."""
    if flags & transport.RST:
        return int64(TRANSITIONS[view, RST_EVENT, state])
    if flags & transport.SYN:
        return int64(TRANSITIONS[view, SYN_EVENT, state])
    if flags & transport.FIN:
        return int64(TRANSITIONS[view, FIN_EVENT, state])
    if flags & transport.ACK:
        return int64(TRANSITIONS[view, ACK_EVENT, state])
    return CL


@compiled
def is_active(protocol, state):
    """Whether a connection in this state counts as active; UDP never does."""
    if protocol != ipv4.TCP:
        return False
    return state == ES or state == SS or state == SR or state == SA


@compiled
def timeout_ms(timeouts, protocol, state):
    return timeouts[0 if protocol == ipv4.TCP else 1, state]


def set_timeouts(timeouts: Any, tcp: int = 0, tcp_fin: int = 0, udp: int = 0) -> None:
    """Set what ``ipvsadm --set`` sets, in seconds; 0 keeps what is there.

    An empty table is given Linux's defaults first.
    """
    if not timeouts.any():
        timeouts[0, : len(TCP_TIMEOUTS)] = np.array(TCP_TIMEOUTS) * 1_000
        timeouts[1, 0] = UDP_TIMEOUT * 1_000
    for row, state, seconds in ((0, ES, tcp), (0, FW, tcp_fin), (1, 0, udp)):
        if seconds:
            timeouts[row, state] = seconds * 1_000
