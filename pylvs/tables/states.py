"""Protocol state machines, as Linux prints them (ip_vs_proto_tcp.c, _udp.c, _sctp.c).

A TCP packet is one of four events, the first that applies: RST, SYN, FIN, ACK; one with none of
these flags closes the connection.  An SCTP packet's event is its first chunk.  Which table applies
depends on what the director sees: replies too (NAT), a reply itself, or the client's half only (DR
and TUN).  While secure_tcp is in force TCP has tables of its own.
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
    ipv4.SCTP: (
        "NONE", "INIT1", "INIT", "C-SENT", "C-REPLIED", "C-WAIT", "COOKIE", "C-ECHOED",
        "ESTABLISHED", "S-SENT", "S-RECEIVED", "S-ACK-SENT", "REJECTED", "CLOSED",
    ),
}
TEMPLATE_NONE, TEMPLATE_ASSURED = range(2)
TEMPLATE_NAMES: Final = ("NONE", "ASSURED")

SYN_EVENT, FIN_EVENT, ACK_EVENT, RST_EVENT, NO_EVENT = range(5)
_EVENTS: Final = {
    transport.RST: RST_EVENT,
    transport.SYN: SYN_EVENT,
    transport.FIN: FIN_EVENT,
    transport.ACK: ACK_EVENT,
}  # the first that applies
SEES_INPUT: Final = 0
SEES_OUTPUT: Final = 1
SEES_INPUT_ONLY: Final = 2
GUARDED: Final = 3  # added to the three while secure_tcp is in force

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
    [  # INPUT       NO  ES  SS  SR  FW  TW  CL  CW  LA  LI  SA     secure_tcp
        [            SR, ES, ES, SR, SR, SR, SR, SR, SR, SR, SA],
        [            CL, CW, SS, TW, TW, TW, CL, CW, LA, LI, SA],
        [            ES, ES, SS, SR, FW, TW, CL, CW, CL, LI, SA],
        [            CL, CL, CL, SR, CL, CL, CL, CL, LA, LI, CL],
    ],
    [  # OUTPUT      NO  ES  SS  SR  FW  TW  CL  CW  LA  LI  SA
        [            SS, ES, SS, SA, SS, SS, SS, SS, SS, LI, SA],
        [            TW, FW, SS, TW, FW, TW, CL, TW, LA, LI, TW],
        [            ES, ES, SS, ES, FW, TW, CL, CW, LA, ES, ES],
        [            CL, CL, SS, CL, CL, TW, CL, CL, CL, CL, CL],
    ],
    [  # INPUT ONLY  NO  ES  SS  SR  FW  TW  CL  CW  LA  LI  SA
        [            SA, ES, ES, SR, SA, SA, SA, SA, SA, SA, SA],
        [            CL, FW, SS, TW, FW, TW, CL, CW, LA, LI, TW],
        [            ES, ES, SS, ES, FW, TW, CL, CW, CL, LI, ES],
        [            CL, CL, CL, SR, CL, CL, CL, CL, LA, LI, CL],
    ],
], np.int8)

# SCTP's events, in the order of its tables' rows.
(DATA, INIT, INIT_ACK, COOKIE_ECHO, COOKIE_ACK, SHUTDOWN, SHUTDOWN_ACK, SHUTDOWN_COMPLETE,
 ERROR, ABORT) = range(10)

(_no, _i1, _in, _cs, _cr, _cw, _co, _ce, _es, _ss, _sr, _sa, _rj, _cl) = range(14)
SCTP_INIT1: Final = _i1
SCTP_INIT: Final = _in
SCTP_ESTABLISHED: Final = _es
SCTP_CLOSED: Final = _cl

SCTP_TRANSITIONS: Final = np.array([
    [  # INPUT   none  init1 init  c-snt c-rep c-wai cook  c-ech estab s-snt s-rec s-ack rejec close
        [        _es,  _i1,  _in,  _cs,  _cr,  _cw,  _co,  _ce,  _es,  _ss,  _sr,  _sa,  _rj,  _cl],
        [        _i1,  _in,  _in,  _cs,  _cr,  _cw,  _co,  _ce,  _es,  _ss,  _sr,  _sa,  _in,  _in],
        [        _cw,  _cw,  _cw,  _cs,  _cr,  _co,  _co,  _ce,  _es,  _ss,  _sr,  _sa,  _rj,  _cl],
        [        _cr,  _in,  _in,  _cr,  _cr,  _cw,  _co,  _ce,  _es,  _ss,  _sr,  _sa,  _rj,  _cl],
        [        _es,  _i1,  _in,  _cs,  _cr,  _cw,  _co,  _es,  _es,  _ss,  _sr,  _sa,  _rj,  _cl],
        [        _sr,  _i1,  _in,  _cs,  _cr,  _cw,  _co,  _ce,  _sr,  _ss,  _sr,  _sa,  _rj,  _cl],
        [        _cl,  _in,  _in,  _cs,  _cr,  _cw,  _co,  _ce,  _es,  _cl,  _sr,  _cl,  _rj,  _cl],
        [        _cl,  _cl,  _cl,  _cs,  _cr,  _cw,  _co,  _ce,  _es,  _ss,  _sr,  _cl,  _rj,  _cl],
        [        _cl,  _i1,  _in,  _cs,  _cr,  _cw,  _co,  _cl,  _es,  _ss,  _sr,  _sa,  _rj,  _cl],
        [        _cl,  _cl,  _cl,  _cl,  _cl,  _rj,  _cl,  _cl,  _cl,  _cl,  _cl,  _cl,  _cl,  _cl],
    ],
    [  # OUTPUT
        [        _es,  _i1,  _in,  _cs,  _cr,  _cw,  _co,  _ce,  _es,  _ss,  _sr,  _sa,  _rj,  _cl],
        [        _cw,  _cw,  _cw,  _cw,  _cw,  _cw,  _cw,  _cw,  _es,  _cw,  _cw,  _cw,  _cw,  _cw],
        [        _cs,  _cs,  _cs,  _cs,  _cr,  _cw,  _co,  _ce,  _es,  _ss,  _sr,  _sa,  _rj,  _cl],
        [        _ce,  _ce,  _ce,  _ce,  _ce,  _ce,  _ce,  _ce,  _es,  _ss,  _sr,  _sa,  _rj,  _cl],
        [        _es,  _es,  _es,  _es,  _es,  _es,  _es,  _es,  _es,  _ss,  _sr,  _sa,  _rj,  _cl],
        [        _ss,  _ss,  _ss,  _ss,  _ss,  _ss,  _ss,  _ss,  _ss,  _ss,  _sr,  _sa,  _rj,  _cl],
        [        _sa,  _sa,  _sa,  _sa,  _sa,  _cw,  _co,  _ce,  _es,  _sa,  _sa,  _sa,  _rj,  _cl],
        [        _cl,  _i1,  _in,  _cs,  _cr,  _cw,  _co,  _ce,  _es,  _ss,  _sr,  _sa,  _rj,  _cl],
        [        _cl,  _cl,  _cl,  _cl,  _cl,  _cw,  _co,  _ce,  _es,  _ss,  _sr,  _sa,  _rj,  _cl],
        [        _cl,  _rj,  _cl,  _cl,  _cl,  _cl,  _cl,  _cl,  _cl,  _cl,  _cl,  _cl,  _cl,  _cl],
    ],
    [  # INPUT ONLY
        [        _es,  _i1,  _in,  _cs,  _cr,  _es,  _co,  _ce,  _es,  _ss,  _sr,  _sa,  _rj,  _cl],
        [        _i1,  _in,  _in,  _in,  _in,  _in,  _co,  _ce,  _es,  _ss,  _sr,  _sa,  _in,  _in],
        [        _ce,  _ce,  _ce,  _ce,  _ce,  _ce,  _co,  _ce,  _es,  _ss,  _sr,  _sa,  _rj,  _cl],
        [        _es,  _es,  _es,  _es,  _es,  _es,  _co,  _ce,  _es,  _ss,  _sr,  _sa,  _rj,  _cl],
        [        _es,  _i1,  _in,  _es,  _es,  _cw,  _es,  _es,  _es,  _ss,  _sr,  _sa,  _rj,  _cl],
        [        _sr,  _i1,  _in,  _cs,  _cr,  _cw,  _co,  _ce,  _sr,  _ss,  _sr,  _sa,  _rj,  _cl],
        [        _cl,  _in,  _in,  _cs,  _cr,  _cw,  _co,  _ce,  _cl,  _cl,  _sr,  _cl,  _rj,  _cl],
        [        _cl,  _cl,  _cl,  _cl,  _cl,  _cw,  _co,  _ce,  _es,  _ss,  _cl,  _cl,  _rj,  _cl],
        [        _cl,  _i1,  _in,  _cs,  _cr,  _cw,  _co,  _ce,  _es,  _ss,  _sr,  _sa,  _rj,  _cl],
        [        _cl,  _cl,  _cl,  _cl,  _cl,  _rj,  _cl,  _cl,  _cl,  _cl,  _cl,  _cl,  _cl,  _cl],
    ],
], np.int8)

# Seconds, by state (tcp_timeouts[], sctp_timeouts[], as of 6.1).
TCP_TIMEOUTS: Final = (2, 900, 120, 60, 120, 120, 10, 60, 30, 120, 120)
UDP_TIMEOUT: Final = 300
SCTP_TIMEOUTS: Final = (2, 4, 61, 61, 61, 61, 61, 61, 900, 61, 61, 61, 4, 61)
# fmt: on

NEW_TIMEOUT_MS: Final = 3_000  # until the first packet has run the state machine
LINGER_MS: Final = 60_000  # a template that is due and still controls connections


def _event_of(flags: int) -> int:
    """Return what TCP flags mean; NO_EVENT if nothing."""
    for flag, event in _EVENTS.items():
        if flags & flag:
            return event
    return NO_EVENT


_EVENT_MASK: Final = 0x1F
_EVENT_OF: Final = np.array([_event_of(flags) for flags in range(_EVENT_MASK + 1)], np.int8)


@compiled
def next_tcp_state(flags, state, view):
    """Return the state after a packet with these TCP flags; ``view`` is one of SEES_*."""
    event = int64(_EVENT_OF[flags & _EVENT_MASK])
    return CL if event == NO_EVENT else int64(TRANSITIONS[view, event, state])


@compiled
def next_state(protocol, signal, state, view, guarded):
    """Return the state after a packet; UDP has one only."""
    if protocol == ipv4.TCP:
        return next_tcp_state(signal, state, view + GUARDED if guarded else view)
    if protocol == ipv4.SCTP:
        return int64(SCTP_TRANSITIONS[view, signal, state])
    return 0


@compiled
def is_active(protocol, state):
    """Whether a connection in this state counts as active; UDP never does."""
    if protocol == ipv4.TCP:
        return state == ES or state == SS or state == SR or state == SA
    return protocol == ipv4.SCTP and state == SCTP_ESTABLISHED


@compiled
def is_established(protocol, state):
    """Whether a client in this state has shown that it is there: its template is ASSURED."""
    if protocol == ipv4.TCP:
        return state == ES
    return protocol == ipv4.SCTP and state == SCTP_ESTABLISHED


@compiled
def timeout_ms(timeouts, protocol, state):
    if protocol == ipv4.TCP:
        return timeouts[0, state]
    if protocol == ipv4.SCTP:
        return timeouts[2, state]
    return timeouts[1, 0]


def set_timeouts(timeouts: Any, tcp: int = 0, tcp_fin: int = 0, udp: int = 0) -> None:
    """Set what ``ipvsadm --set`` sets, in seconds; 0 keeps what is there.

    An empty table is given Linux's defaults first.
    """
    if not timeouts.any():
        timeouts[0, : len(TCP_TIMEOUTS)] = np.array(TCP_TIMEOUTS) * 1_000
        timeouts[1, 0] = UDP_TIMEOUT * 1_000
        timeouts[2, : len(SCTP_TIMEOUTS)] = np.array(SCTP_TIMEOUTS) * 1_000
    for row, state, seconds in ((0, ES, tcp), (0, FW, tcp_fin), (1, 0, udp)):
        if seconds:
            timeouts[row, state] = seconds * 1_000
