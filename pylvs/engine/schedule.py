"""Stage three: a connection for a packet that may open one, or the reason why there is none.

A persistent service remembers its clients by templates, rows of the connection table without a
client port; a new connection is made under its client's template and goes where that points
(ip_vs_core.c, ip_vs_schedule and ip_vs_sched_persist).
"""

from typing import Final

from numpy import int64

from pylvs import persistence, schedulers
from pylvs.engine.track import count_request, count_unanswered, leave_to_host
from pylvs.frames import NONE, SHORT, Reason, Verdict
from pylvs.helpers import ftp
from pylvs.jit import apart, compiled
from pylvs.tables import connections, defence, expiry, paths, servers, services, states
from pylvs.tables.addresses import address_of, destination_of, key_of, source_of
from pylvs.tables.connections import keys, local_ends, templates
from pylvs.tables.layouts import (
    BYPASS,
    FLAG_LOCAL,
    FLAG_NO_OUTPUT,
    FLAG_ONE_PACKET,
    FLAG_SPAN,
    FLAG_TEMPLATE,
    FORWARDING_MASK,
    FULLNAT,
    MASQUERADE,
    ONE_PACKET,
    PERSISTENT,
)
from pylvs.tables.layouts.network import LOCAL_ADDRESS
from pylvs.wire import ip, ipv4, transport

DECIDED: Final = -4
"""In the place of a server: the frame has its verdict, or its connection."""
ASK_KEY: Final = -5
KEY_ANSWERED: Final = -6
"""Likewise: Python is to put the packet's key into ``tables.key``, and has done so."""
NO_KEY: Final = -1
"""In the place of a key's size: the packet has none."""


@compiled
def schedule(tables, memory, frame, now_ms):
    """Return the server for the frame's new connection, ``NONE``, or who is to be asked for it.

    Or ``DECIDED``.
    """
    if frame.signal == SHORT:
        _drop(frame, Reason.TRUNCATED)
        return DECIDED
    row = services.find_for(tables, frame)
    if row == NONE:
        leave_to_host(frame)
        return DECIDED
    frame.service = row
    director = tables.director[0]
    if frame.quotes == 0 and not _may_open(director, frame):
        _call_stray(frame)
        return DECIDED
    if defence.refuses(director):
        _drop(frame, Reason.DEFENDED)
        return DECIDED
    if frame.source_port == transport.FTP_DATA:
        _call_stray(frame)
        return DECIDED
    service = tables.services[row]
    if service.service_flags & PERSISTENT:
        if service.engine:
            return _read_key(tables, memory, frame, service, now_ms)
        if _follows_template(tables, frame, service, now_ms):
            return DECIDED
    elif service.mark == 0 and service.span == 0 and service.port != frame.destination_port:
        return NONE
    return schedulers.pick(tables, row, frame, now_ms)


@apart
def _read_key(tables, memory, frame, service, now_ms):
    """Go on as ``schedule`` does once the packet's key is known; without one it is dropped."""
    found = persistence.read_key(tables, memory, frame, int64(service.engine))
    if found == persistence.ASK_PYTHON:
        return ASK_KEY
    if found == persistence.REFUSED:
        tables.director[0].key_size = NO_KEY
    return schedule_by_key(tables, frame, now_ms)


@apart
def schedule_by_key(tables, frame, now_ms):
    """Schedule a packet whose key was read."""
    if tables.director[0].key_size == NO_KEY:
        _drop(frame, Reason.NO_KEY)
        return DECIDED
    if _follows_template(tables, frame, tables.services[frame.service], now_ms):
        return DECIDED
    return schedulers.pick(tables, int64(frame.service), frame, now_ms)


@compiled
def _drop(frame, reason):
    frame.verdict = Verdict.DROP
    frame.reason = reason


@compiled
def _call_stray(frame):
    """IPVS lets it pass to the host, which has no use for it: an ICMP error is not answered."""
    _drop(frame, Reason.DISCARDED if frame.quotes else Reason.STRAY)


@compiled
def _may_open(director, frame):
    if frame.protocol == ipv4.TCP:
        if frame.signal & transport.RST:
            return False
        return frame.signal & transport.SYN != 0 or director.sloppy_tcp != 0
    if frame.protocol == ipv4.SCTP:
        if frame.signal == transport.SCTP_INIT:
            return True
        return director.sloppy_sctp != 0 and frame.signal != transport.SCTP_ABORT
    return True


@compiled
def connect(tables, frame, server_row, now_ms):
    """Give the frame a new connection to the server that was picked."""
    service = tables.services[frame.service]
    if server_row == schedulers.FAILED:
        _drop(frame, Reason.SCHEDULER_FAILED)
    elif server_row == NONE:
        _refuse(tables, frame, service, now_ms)
    elif service.service_flags & PERSISTENT:
        _open_with_template(tables, frame, service, server_row, now_ms)
    else:
        port = int64(tables.servers[server_row].port)
        _open(tables, frame, service, server_row, port, NONE, now_ms)


@apart
def _refuse(tables, frame, service, now_ms):
    """There is a service and no server for the packet (ip_vs_core.c, ip_vs_leave)."""
    if tables.director[0].cache_bypass and service.mark and frame.quotes == 0:
        path = paths.find(tables, destination_of(frame))
        # Of IPv6 Linux takes an address of its own as well, and loses the packet later.
        if path != NONE and (frame.family == 6 or tables.paths[path].kind != LOCAL_ADDRESS):
            _bypass(tables, frame, service, now_ms)
            return
    if service.port == transport.FTP and frame.destination_port != transport.FTP:
        _call_stray(frame)
    else:
        _drop(frame, Reason.DISCARDED if frame.quotes else Reason.NO_SERVER)


@apart
def _bypass(tables, frame, service, now_ms):
    """Open a connection to nobody: its packets go where they are addressed."""
    row = connections.allocate(tables)
    if row == NONE:
        _drop(frame, Reason.TABLE_FULL)
        return
    entry = tables.connections[row]
    entry.server = NONE
    entry.server_address = 0
    entry.server_port = 0
    entry.control = NONE
    _fill_client(tables, frame, row)
    flags = BYPASS | connections.kind_of(frame)
    if service.service_flags & ONE_PACKET and frame.protocol == ipv4.UDP:
        flags |= FLAG_ONE_PACKET
    entry.conn_flags = flags
    connections.insert(tables, row, now_ms)
    count_request(tables, frame, row, now_ms)
    forget_one_packet(tables, row)


@compiled
def _fill_client(tables, frame, row):
    kind = connections.kind_of(frame)
    connections.set_ends(tables, row, source_of(frame), destination_of(frame), kind)
    entry = tables.connections[row]
    entry.client_port = frame.source_port
    entry.virtual_port = frame.destination_port
    _begin(entry, frame.protocol)


@compiled
def _begin(entry, protocol):
    entry.protocol = protocol
    entry.state = states.NO
    entry.timeout_ms = states.NEW_TIMEOUT_MS
    entry.in_packets = 0
    entry.controls = 0


@compiled
def _flags_of(server):
    method = int64(server.forwarding)
    if method == MASQUERADE or method == FULLNAT:
        return MASQUERADE
    return method | FLAG_NO_OUTPUT


@compiled
def _open(tables, frame, service, server_row, server_port, template_row, now_ms):
    """Give the frame a new connection to ``server_row``, under a template or ``NONE``."""
    row = connections.allocate(tables)
    if row == NONE:
        _drop(frame, Reason.TABLE_FULL)
        return
    server = tables.servers[server_row]
    entry = tables.connections[row]
    _fill_client(tables, frame, row)
    entry.server = server_row
    entry.server_address = key_of(tables, address_of(server))
    entry.server_port = server_port if server_port else frame.destination_port
    entry.control = template_row
    flags = _flags_of(server) | connections.kind_of(frame)
    if service.service_flags & ONE_PACKET and frame.protocol == ipv4.UDP:
        flags |= FLAG_ONE_PACKET
    entry.conn_flags = flags
    if server.forwarding == FULLNAT and not _take_local_end(tables, frame, row):
        return
    connections.insert(tables, row, now_ms)
    servers.charge_connection(tables, server_row)
    if frame.destination_port == transport.FTP and flags & FORWARDING_MASK == MASQUERADE:
        _help(tables, frame, service, row)
    if frame.quotes:
        count_unanswered(tables, frame, row)
    else:
        count_request(tables, frame, row, now_ms)
    forget_one_packet(tables, row)


@apart
def _take_local_end(tables, frame, row):
    """Give a new connection a local end; without one it is given up again: return False.

    It outlives one packet: only it knows whose the reply is.
    """
    entry = tables.connections[row]
    server, port = int64(entry.server), int64(entry.server_port)
    choice = local_ends.choose(tables, frame.family, frame.protocol, server, port)
    if choice == NONE:
        entry.next = tables.director[0].free
        tables.director[0].free = row
        _drop(frame, Reason.NO_LOCAL_END)
        return False
    entry.conn_flags = int64(entry.conn_flags) & ~FLAG_ONE_PACKET | FLAG_LOCAL
    local_ends.bind(tables, row, choice)
    return True


@apart
def _help(tables, frame, service, row):
    """Have the helper listen to a control connection, if it can follow its data."""
    follows = service.span == 0 and int64(tables.connections[row].conn_flags) & FLAG_LOCAL == 0
    if tables.director[0].ftp_helper and frame.protocol == ipv4.TCP and follows:
        ftp.listen(tables, row)


@compiled
def forget_one_packet(tables, row):
    if int64(tables.connections[row].conn_flags) & FLAG_ONE_PACKET:
        connections.remove(tables, row)


@compiled
def _template_protocol(frame, service):
    if frame.destination_port != service.port and service.mark:
        return 0
    return frame.protocol


@compiled
def _template_address(frame, service):
    if frame.destination_port != service.port and service.mark:
        if frame.family == 4:
            return ip.from_ipv4(service.mark)
        return int64(service.mark) << 32, int64(0)  # where Linux puts it
    if service.span:
        return address_of(service)
    return destination_of(frame)


@compiled
def _masked(client, service):
    """Return a client's address as far as the service tells clients apart."""
    return client[0] & service.netmask_high, client[1] & service.netmask_low


@compiled
def _template_port(frame, service):
    if frame.destination_port == service.port and service.port != transport.FTP:
        return frame.destination_port
    return 0


@apart
def _follows_template(tables, frame, service, now_ms):
    """Send the packet where its client's template points; return whether there is one."""
    row = connections.live(tables, _find_template(tables, frame, service), now_ms)
    if row == NONE or not _is_valid(tables, row):
        return False
    _open_under(tables, frame, service, row, now_ms)
    return True


@compiled
def _find_template(tables, frame, service):
    protocol, port = _template_protocol(frame, service), _template_port(frame, service)
    client, virtual = _masked(source_of(frame), service), _template_address(frame, service)
    kind, span = connections.kind_of(frame), int64(service.span)
    if service.engine:
        return templates.find_keyed(
            tables, int64(service.engine), protocol, client, virtual, port, kind, span
        )
    return templates.find(tables, protocol, client, virtual, port, kind, span)


@compiled
def _is_valid(tables, row):
    """Whether a template still points to a server; if not, nobody will find it again."""
    template = tables.connections[row]
    if template.server != NONE:
        server = tables.servers[template.server]
        quiesced = server.weight == 0 and tables.director[0].expire_quiescent_template
        if server.available and not quiesced:
            return True
    connections.invalidate(template)
    return False


@apart
def _open_with_template(tables, frame, service, server_row, now_ms):
    """Make a template to the server that was picked, and the connection under it."""
    row = connections.allocate(tables) if not service.engine or keys.have_room(tables) else NONE
    if row == NONE:
        _drop(frame, Reason.TABLE_FULL)
        return
    template = tables.connections[row]
    port = _template_port(frame, service)
    client, virtual = _masked(source_of(frame), service), _template_address(frame, service)
    connections.set_ends(tables, row, client, virtual, connections.kind_of(frame))
    template.virtual_port = port
    template.server_port = tables.servers[server_row].port if port else 0
    template.protocol = _template_protocol(frame, service)
    _fill_template(tables, row, service, server_row, connections.kind_of(frame), now_ms)
    _open_under(tables, frame, service, row, now_ms)


@apart
def _fill_template(tables, row, service, server_row, kind, now_ms):
    """Fill in what all templates of a service and server have in common, and insert it."""
    server = tables.servers[server_row]
    template = tables.connections[row]
    template.client_port = 0
    template.server_address = key_of(tables, address_of(server))
    template.state = states.TEMPLATE_NONE
    template.server = server_row
    template.control = NONE
    template.controls = 0
    template.in_packets = 0
    template.conn_flags = _flags_of(server) | FLAG_TEMPLATE | kind
    if service.span:
        template.conn_flags = int64(template.conn_flags) | FLAG_SPAN
    template.timeout_ms = service.persistent_ms
    if service.engine:
        keys.add(tables, row, int64(service.engine))
    connections.insert(tables, row, now_ms)


@apart
def _open_under(tables, frame, service, template_row, now_ms):
    """Open a connection under a template, whatever its server's weight and load."""
    template = tables.connections[template_row]
    server_row = int64(template.server)
    server_port = frame.destination_port
    maps = server_port == service.port or service.span
    if maps and tables.servers[server_row].port:
        server_port = int64(tables.servers[server_row].port)
    expiry.restart(tables, template_row, int64(template.timeout_ms), now_ms)
    _open(tables, frame, service, server_row, server_port, template_row, now_ms)


@apart
def may_start(tables, memory, frame, server_row):
    """Whether a real server's packet begins a talk with a client, as SIP's may.

    It needs a Call-ID if its service is persistent (ip_vs_core.c, __ip_vs_rs_conn_out).
    """
    service = tables.services[tables.servers[server_row].service]
    if service.engine != persistence.SIP or frame.protocol != ipv4.UDP or service.span:
        return False
    if service.service_flags & PERSISTENT == 0:
        return True
    return persistence.read_key(tables, memory, frame, persistence.SIP) == persistence.FOUND


@apart
def start_from_server(tables, frame, server_row, now_ms):
    """Open a connection for such a packet; return its row, or ``NONE``: it is dropped."""
    service = tables.services[tables.servers[server_row].service]
    template_row = NONE
    if service.service_flags & PERSISTENT:
        template_row = _template_from_server(tables, frame, service, server_row, now_ms)
    has_room = template_row != NONE or service.service_flags & PERSISTENT == 0
    row = connections.allocate(tables) if has_room else NONE
    if row == NONE:
        _drop(frame, Reason.TABLE_FULL)
        return NONE
    entry = tables.connections[row]
    kind = connections.kind_of(frame)
    connections.set_ends(tables, row, destination_of(frame), address_of(service), kind)
    entry.client_port = frame.destination_port
    entry.virtual_port = service.port
    _begin(entry, frame.protocol)
    entry.server = server_row
    entry.server_address = key_of(tables, source_of(frame))
    entry.server_port = frame.source_port
    entry.control = template_row
    flags = _flags_of(tables.servers[server_row]) | kind
    if service.service_flags & ONE_PACKET:
        flags |= FLAG_ONE_PACKET
    entry.conn_flags = flags
    if template_row != NONE:
        timeout = int64(tables.connections[template_row].timeout_ms)
        expiry.restart(tables, template_row, timeout, now_ms)
    connections.insert(tables, row, now_ms)
    servers.charge_connection(tables, server_row)
    return row


@compiled
def _template_from_server(tables, frame, service, server_row, now_ms):
    """Return the template that such a packet belongs to, if need be a new one, or ``NONE``."""
    client = _masked(destination_of(frame), service)
    virtual, port = address_of(service), int64(service.port)
    kind = connections.kind_of(frame)
    found = templates.find_keyed(
        tables, persistence.SIP, frame.protocol, client, virtual, port, kind, 0
    )
    row = connections.live(tables, found, now_ms)
    if row != NONE and _is_valid(tables, row):
        if tables.connections[row].server == server_row:
            return row
        connections.invalidate(tables.connections[row])
    row = connections.allocate(tables) if keys.have_room(tables) else NONE
    if row != NONE:
        template = tables.connections[row]
        connections.set_ends(tables, row, client, virtual, kind)
        template.virtual_port = port
        template.server_port = frame.source_port
        template.protocol = frame.protocol
        _fill_template(tables, row, service, server_row, kind, now_ms)
    return row
