"""Rules text: what ``ipvsadm -S`` prints and ``ipvsadm -R`` reads, a command a line.

    -A -t 192.0.2.10:80 -s wrr -p 300
    -a -t 192.0.2.10:80 -r 10.0.0.11:8080 -m -w 3

Options, defaults and phrases are ipvsadm 1.31's.  In files, blank lines and ``#`` comments are
allowed beyond it.
"""

from collections.abc import Iterable
from typing import Final

from pylvs.control.ipvsadm.grammar import TRY, USAGE, Line, check, take_apart
from pylvs.control.ipvsadm.names import NUMERIC, Names
from pylvs.control.model import (
    ALL_PORTS,
    ANY_MASK,
    ANY_PREFIX,
    CHECKSUM,
    DEFAULT_SCHEDULER,
    DSCP_MAX,
    FULLNAT,
    GRE,
    GUE,
    IPIP,
    L3DSR,
    MAPS_PORTS,
    MASQUERADE,
    ONE_PACKET,
    PERSISTENT,
    PROTOCOLS,
    REMOTE_CHECKSUM,
    ROUTE,
    SCHEDULER_FLAGS,
    TUNNEL,
    TUNNEL_TYPES,
    WEIGHT_MAX,
    WHOLE,
    Command,
    Ports,
    Server,
    ServerKey,
    ServiceKey,
    Table,
    Terms,
    any_mask,
    marked,
)
from pylvs.errors import RuleError, UsageError
from pylvs.wire.text import PORT_RANGES_LIMIT, family_of, is_ipv6, mask_of

_METHODS: Final = {
    "masquerading": MASQUERADE,
    "gatewaying": ROUTE,
    "ipip": TUNNEL,
    "l3dsr": L3DSR,
    "fullnat": FULLNAT,
}
_PERSISTENT_DEFAULT: Final = 360
_PERSISTENT_MAX: Final = 31 * 86_400
_MARK_MAX: Final = 2**32 - 1
_PORT_MAX: Final = 65_535
_TIMEOUT_MAX: Final = 2**31 // 1_000
_FLAG_NAMES: Final = {
    "flag-1": (0, ""), "flag-2": (1, ""), "flag-3": (2, ""),
    "sh-fallback": (0, "sh"), "sh-port": (1, "sh"),
    "mh-fallback": (0, "mh"), "mh-port": (1, "mh"),
}  # fmt: skip
_TUNNEL_SUMS: Final = {
    "tun-nocsum": 0,
    "tun-csum": CHECKSUM,
    "tun-remcsum": REMOTE_CHECKSUM,
}


def parse_line(words: list[str], names: Names = NUMERIC) -> Command:
    """Return the command that the words of one line give; raises RuleError."""
    words = [word for word in words if word != "ipvsadm"]
    if not words:
        raise RuleError(TRY, USAGE)
    line = take_apart(words)
    if line.verb in ("start", "stop"):
        return _daemon(line)
    service = _service_key(line, names)
    timeouts = _timeouts(line) if line.verb == "set" else (0, 0, 0)
    terms = _terms(line, service, names) if line.verb in "AE" else Terms()
    server = _server(line, service, names) if line.verb in "aed" else None
    if line.arguments:
        raise RuleError(f"unexpected argument {line.arguments[0]}")
    check(line)
    if line.verb in "AE":
        assert service is not None
        _check_service(service, terms)
    if line.verb in "ae":
        assert service is not None
        _check_family(service, server)
        _check_tunnel(line, server)
    show = frozenset(name for _, name, _ in line.options)
    return Command(line.verb, service, terms, server, timeouts, show)


class Lines:
    """Parses the lines of one text.

    Many are like the one before but for their real server, as in what ``-S`` prints: of these only
    that is read, which takes a quarter of the time.
    """

    def __init__(self, names: Names = NUMERIC) -> None:
        self._names = names
        self._words: list[str] = []
        self._command = Command("")

    def parse(self, words: list[str]) -> Command:
        """Return the command of the next line; raises RuleError."""
        self._command = self._like_before(words) or parse_line(words, self._names)
        self._words = words
        return self._command

    def _like_before(self, words: list[str]) -> Command | None:
        before, like = self._words, self._command
        server, service = like.server, like.service
        if server is None or service is None or before.count("-r") != 1:
            return None
        at = before.index("-r") + 1
        if words[:at] != before[:at] or words[at + 1 :] != before[at + 1 :] or at == len(words):
            return None
        key = _server_key(words[at], like.verb, service, server.method, self._names)
        other = Server(
            key,
            server.method,
            server.weight,
            server.upper,
            server.lower,
            server.tunnel_type,
            server.tunnel_port,
            server.tunnel_flags,
            server.dscp,
            server.proxy,
        )
        if like.verb != "d":
            _check_family(service, other)
        return Command(like.verb, service, server=other, show=like.show)


def number_of(text: str, low: int, high: int) -> int | None:
    """Return a number as ipvsadm reads one (C's notations), or None when it is none or outside."""
    try:
        base = 16 if text[:2] in ("0x", "0X") else 8 if text[:1] == "0" and len(text) > 1 else 10
        value = int(text, base) if text.isascii() and "_" not in text else None
    except ValueError:
        return None
    return value if value is not None and low <= value <= high else None


def _host(text: str, names: Names = NUMERIC) -> int:
    """Return the address of a host; raises ValueError."""
    return names.address_of(text)


def unbracketed(text: str) -> str:
    """Return ``[address]`` without its brackets: where there is no port ipvsadm wants none."""
    return text[1:-1] if text.startswith("[") and text.endswith("]") else text


def parse_endpoint(
    text: str, default_port: int, protocol: int = PROTOCOLS["tcp"], names: Names = NUMERIC
) -> tuple[int, int]:
    """Return (address, port) of ``host[:port]``; raises ValueError."""
    host, port_text = _host_and_ports(text)
    port = default_port if port_text is None else number_of(port_text, 0, _PORT_MAX)
    if port is None:
        port = names.port_of(port_text or "", protocol)
    return _host(host, names), port


def parse_service(text: str, protocol: int, names: Names = NUMERIC) -> ServiceKey:
    """Return the service ``HOST[/PREFIX][:PORTS]``, port 0 if there is none; raises ValueError.

    PORTS is a port, a list as in ``80,443,8000-8999``, or ``any``; port 0 of a network is ``any``.
    """
    host, ports_text = _host_and_ports(text)
    host, slash, length = host.partition("/")
    ports = ((0, 0),) if ports_text is None else _ports_of(ports_text, protocol, names)
    address = names.address_of(host)
    bits = 128 if is_ipv6(address) else 32
    if slash and ports_text is None:
        raise ValueError(f"{text!r} names no ports: say any for all")
    prefix = int(length) if slash and length.isascii() and length.isdigit() else bits
    if prefix > bits or (slash and not length.isdigit()):
        raise ValueError(f"/{length} is not a prefix of 0 to {bits} bits")
    network = address & mask_of(prefix, family_of(address))
    if family_of(network) != family_of(address):
        raise ValueError(f"{text!r} includes IPv4's addresses")
    if prefix != bits and ports == ((0, 0),):
        ports = ALL_PORTS
    is_one = len(ports) == 1 and ports[0][0] == ports[0][1]
    port, ports = (ports[0][0], ()) if is_one else (0, ports)
    return ServiceKey(
        protocol, network, port, prefix=WHOLE if prefix == bits else prefix, ports=ports
    )


def _host_and_ports(text: str) -> tuple[str, str | None]:
    """Take ``HOST[:PORTS]`` apart; raises ValueError."""
    if text.startswith("["):
        host, colon, ports = text[1:].partition("]:")
        if not colon:
            raise ValueError(f"{text!r} is not [address]:port")
        return host, ports
    if text.count(":") > 1:
        return text, None
    host, colon, ports = text.partition(":")
    return host, ports if colon else None


def _ports_of(text: str, protocol: int, names: Names) -> Ports:
    """Return the ranges of ports that a text names, in order; raises ValueError."""
    if text == "any":
        return ALL_PORTS
    ranges: list[tuple[int, int]] = []
    for low, high in sorted(_range_of(one, protocol, names) for one in text.split(",")):
        if ranges and low <= ranges[-1][1] + 1:
            ranges[-1] = ranges[-1][0], max(high, ranges[-1][1])
        else:
            ranges.append((low, high))
    if len(ranges) > PORT_RANGES_LIMIT:
        raise ValueError(f"{len(ranges)} ranges of ports are more than {PORT_RANGES_LIMIT}")
    return tuple(ranges)


def _range_of(text: str, protocol: int, names: Names) -> tuple[int, int]:
    first, dash, last = text.partition("-")
    low, high = number_of(first, 0, _PORT_MAX), number_of(last, 0, _PORT_MAX)
    if dash and low is not None and high is not None:
        if low > high:
            raise ValueError(f"{text!r} ends before it begins")
        return low, high
    port = number_of(text, 0, _PORT_MAX)
    if port is None:
        port = names.port_of(text, protocol)
    return port, port


def _service_key(line: Line, names: Names) -> ServiceKey | None:
    key = None
    for shown, name, value in line.options:
        if name == "ipv6":
            if key is None or not key.mark:
                raise RuleError("-6 used before -f\n")
            key = marked(key.mark, 6)
        if shown != "service-address":
            continue
        if name == "fwmark-service":
            mark = number_of(value, 1, _MARK_MAX)
            if mark is None:
                raise RuleError(f"invalid fwmark value `{value}' specified")
            key = marked(mark)
            continue
        try:
            key = parse_service(value, PROTOCOLS[name.partition("-")[0]], names)
        except ValueError:
            raise RuleError("illegal virtual server address[:port] specified") from None
    return key


def _terms(line: Line, service: ServiceKey | None, names: Names) -> Terms:
    flags = 0
    persistent = 0
    netmask = any_mask(service.family if service else 4)
    if line.has("persistent"):
        text = line.value("persistent")
        seconds = number_of(text, 1, _PERSISTENT_MAX) if text else _PERSISTENT_DEFAULT
        if seconds is None:
            raise RuleError(f"invalid timeout value `{text}' specified")
        flags |= PERSISTENT
        persistent = seconds
    if line.has("netmask"):
        given = [name for _, name, _ in line.options]
        follows = "netmask" in given[_last_of_service(given) :]
        if netmask == ANY_MASK or follows:
            netmask = netmask_of(line.value("netmask"), netmask == ANY_PREFIX, names)
    if line.has("ops"):
        flags |= ONE_PACKET
    scheduler = line.value("scheduler", DEFAULT_SCHEDULER)
    if line.has("sched-flags"):
        flags |= scheduler_flags(line.value("sched-flags").split(","), scheduler)
    return Terms(scheduler, flags, persistent, netmask, line.value("pe"))


def _last_of_service(given: list[str]) -> int:
    """Return where the last option stands that names the service: IPv6's sets the mask anew."""
    names = {"tcp-service", "udp-service", "sctp-service", "fwmark-service", "ipv6"}
    return max((at for at, name in enumerate(given) if name in names), default=0)


def netmask_of(text: str, is_ipv6: bool, names: Names = NUMERIC) -> int:
    """Return an IPv4 mask, or the length of an IPv6 prefix; raises RuleError."""
    if is_ipv6:
        prefix = number_of(text, 1, ANY_PREFIX)
        if prefix is None:
            raise RuleError("illegal ipv6 netmask specified")
        return prefix
    try:
        mask = _host(text, names)
    except ValueError:
        mask = -1
    if mask < 0 or family_of(mask) == 6:
        raise RuleError("illegal virtual server persistent mask specified")
    return mask


def scheduler_flags(names: Iterable[str], scheduler: str) -> int:
    """Return the flags that names mean for a scheduler; raises RuleError."""
    flags = 0
    for name in names:
        if name not in _FLAG_NAMES:
            raise RuleError(f"invalid scheduler flag `{name}'")
        number, owner = _FLAG_NAMES[name]
        if owner and owner != scheduler:
            raise RuleError(f"incompatible scheduler flag `{name}'")
        flags |= SCHEDULER_FLAGS[number]
    return flags


def _check_family(service: ServiceKey, server: Server | None) -> None:
    assert server is not None
    if family_of(server.key.address) != service.family and server.method != TUNNEL:
        raise RuleError("Different address family is allowed only for tunneling servers")
    if server.proxy and not service.mark and service.protocol != PROTOCOLS["tcp"]:
        raise RuleError("The PROXY protocol is only for TCP virtual services")


def _check_service(service: ServiceKey, terms: Terms) -> None:
    zero = not service.mark and not service.port and not service.ports
    if zero and not terms.flags & PERSISTENT:
        raise RuleError("Zero port specified for non-persistent service")
    udp = service.protocol == PROTOCOLS["udp"] or service.mark
    if terms.flags & ONE_PACKET and not udp:
        raise RuleError("One-Packet Scheduling is only for UDP virtual services")


def _limit(line: Line, shown: str, phrase: str, default: int) -> int:
    value = number_of(line.value(shown, str(default)), 0, WEIGHT_MAX)
    if value is None:
        raise RuleError(phrase)
    return value


def _server(line: Line, service: ServiceKey | None, names: Names) -> Server | None:
    if not line.has("real-server"):
        return None
    method = ROUTE
    for shown, name, _ in line.options:
        if shown == "forwarding-method":
            method = _METHODS[name]
    key = _server_key(line.value("real-server"), line.verb, service, method, names)
    weight = _limit(line, "weight", "illegal weight specified", 1)
    upper = _limit(line, "u-threshold", "illegal u_threshold specified", 0)
    lower = _limit(line, "l-threshold", "illegal l_threshold specified", 0)
    dscp = number_of(line.value("forwarding-method"), 1, DSCP_MAX) if method == L3DSR else 0
    if dscp is None:
        raise RuleError(f"illegal DSCP specified: it is 1 to {DSCP_MAX}")
    proxy = line.value("forwarding-method") if method == FULLNAT else ""
    if proxy not in ("", "proxy"):
        raise RuleError(f"illegal way `{proxy}' to tell the server its clients: it is proxy")
    return Server(key, method, weight, upper, lower, *_tunnel(line), dscp, int(proxy != ""))


def _server_key(
    text: str, verb: str, service: ServiceKey | None, method: int, names: Names
) -> ServerKey:
    port = service.port if service else 0
    protocol = service.protocol if service else PROTOCOLS["tcp"]
    try:
        address, port = parse_endpoint(text, port, protocol, names)
    except ValueError:
        raise RuleError("illegal real server address[:port] specified") from None
    if method not in MAPS_PORTS and verb != "d" and service and not service.mark:
        port = service.port  # ipvsadm overwrites it without a word
    return ServerKey(address, port)


def _tunnel(line: Line) -> tuple[int, int, int]:
    """Return the type, port and flags of a server's tunnel."""
    name = line.value("tun-type", "ipip")
    if name not in TUNNEL_TYPES:
        raise RuleError("illegal tunnel type specified")
    port = 0
    if line.has("tun-port"):
        given = number_of(line.value("tun-port"), 1, _PORT_MAX)
        if given is None:
            raise RuleError("illegal tunnel port specified")
        port = given
    flags = 0
    for shown, flag in _TUNNEL_SUMS.items():
        if line.has(shown):
            flags |= flag
    return TUNNEL_TYPES.index(name), port, flags


def _check_tunnel(line: Line, server: Server | None) -> None:
    assert server is not None
    kind = server.tunnel_type
    name = TUNNEL_TYPES[kind]
    given = [option for option in ("tun-type", "tun-port", *_TUNNEL_SUMS) if line.has(option)]
    if given and server.method != TUNNEL:
        raise RuleError("Tunnel options conflict with forward method")
    illegal = {
        IPIP: ["tun-port", *_TUNNEL_SUMS],
        GUE: [],
        GRE: ["tun-port", "tun-remcsum"],
    }[kind]
    if kind == GUE and not line.has("tun-port"):
        raise RuleError(f"You need to supply the 'tun-port' option for the '{name}' tunnel type")
    for option in illegal:
        if line.has(option):
            raise RuleError(f"Illegal '{option}' option with the '{name}' tunnel type")
    sums = [option for option in _TUNNEL_SUMS if line.has(option)]
    if len(sums) > 1:
        raise RuleError(
            f"The option '{sums[1]}' conflicts with the '{sums[0]}' option in the '{name}' "
            "tunnel type"
        )


def _timeouts(line: Line) -> tuple[int, int, int]:
    given, line.arguments = line.arguments[:3], line.arguments[3:]
    if len(given) < 3:
        raise RuleError("--set option requires 3 timeout values")
    values = []
    for text in given:
        value = number_of(text, 0, _TIMEOUT_MAX)
        if value is None:
            raise RuleError(f"invalid timeout value `{text}' specified")
        values.append(value)
    return values[0], values[1], values[2]


def _daemon(line: Line) -> Command:
    """Return what starts or stops a synchronisation daemon, its interface in ``daemon``."""
    if not line.arguments:
        raise RuleError(TRY, USAGE)
    role = line.arguments.pop(0)
    if role not in ("master", "backup"):
        phrase = "start-daemon parameter" if line.verb == "start" else "start_daemon"
        raise RuleError(f"illegal {phrase} specified")
    limits = {
        "syncid": (0, 255),
        "mcast-port": (1, _PORT_MAX),
        "mcast-ttl": (1, 255),
        "sync-maxlen": (1, 65_507),
    }
    for shown, _, value in line.options:
        if shown in limits and number_of(value, *limits[shown]) is None:
            raise RuleError(f"illegal {shown} specified")
        if shown == "mcast-group":
            _check_group(value)
    if line.arguments:
        raise RuleError(f"unexpected argument {line.arguments[0]}")
    check(line)
    return Command(line.verb, daemon=line.value("mcast-interface"))


def _check_group(text: str) -> None:
    try:
        group = _host(text)
    except ValueError:
        group = 0
    if family_of(group) == 6:
        if group >> 120 != 0xFF:
            raise RuleError(f"invalid IPv6 mcast-group `{text}'")
    elif not 0xE000_0000 <= group < 0xF000_0000:
        raise RuleError(f"invalid IPv4 mcast-group `{text}'")


def parse_text(lines: Iterable[str], name: str) -> list[Command]:
    """Return the commands of a whole text, tried on an empty table.

    Raises UsageError naming every fault with its line, so that a text is taken whole or not at all.
    """
    commands: list[Command] = []
    faults: list[str] = []
    table, parser = Table(), Lines()
    for number, text in enumerate(lines, 1):
        words = text.partition("#")[0].split()
        if not words:
            continue
        try:
            command = parser.parse(words)
            if command.verb not in ("A", "E", "D", "C", "a", "e", "d", "set"):
                raise RuleError(f"{words[0]} changes no rule")
            table.apply(command)
        except RuleError as error:
            faults.append(f"{name}:{number}: {error}")
        else:
            commands.append(command)
    if faults:
        raise UsageError("\n".join(faults))
    return commands
