"""What ``pylvs run`` takes: --vip, --rs, --mode, --rules; --sysctl, --mark."""

import sys
from collections.abc import Callable, Collection
from typing import Any

import click

from pylvs.control import settings
from pylvs.control.config.marks import parse_mark
from pylvs.control.ipvsadm import rules as ipvsadm_rules
from pylvs.control.ipvsadm.rules import (
    number_of,
    parse_endpoint,
    parse_line,
    parse_text,
    unbracketed,
)
from pylvs.control.model import (
    DEFAULT_SCHEDULER,
    DSCP_MAX,
    L3DSR,
    MAPS_PORTS,
    METHODS,
    PROTOCOLS,
    TUNNEL,
    WEIGHT_MAX,
    Command,
    MarkRule,
    Server,
    ServerKey,
    ServiceKey,
    Terms,
)
from pylvs.errors import RuleError, UsageError
from pylvs.wire.text import family_of, is_unicast

_VIP_FORMS = "give IP:PORT, IP:PORT/udp or NET/LEN:PORT,PORT-PORT"

_OPTIONS = (
    click.option(
        "--vip",
        "vips",
        multiple=True,
        metavar="IP[/LEN]:PORTS[/udp|/sctp]",
        help="A virtual service; /tcp is the default.  PORTS is a port, a list as in "
        "80,443,8000-8999, or any.  May be given again.",
    ),
    click.option(
        "--rs",
        "servers",
        multiple=True,
        metavar="IP[:PORT][,weight=N...]",
        help="A real server of every --vip.  Without a port, the service's.  More "
        "settings: upper=N and lower=N, connection thresholds.",
    ),
    click.option(
        "--mode",
        type=click.Choice(list(METHODS)),
        help="Forwarding method: nat, dr (default), tun, l3dsr or fullnat.",
    ),
    click.option(
        "--dscp",
        type=click.IntRange(1, DSCP_MAX),
        metavar="N",
        help="What marks the packets of --mode l3dsr: it stands for the VIP.",
    ),
    click.option(
        "--proxy",
        is_flag=True,
        help="Tell servers of --mode fullnat their clients, by the PROXY protocol's header.",
    ),
    click.option("-m", "mode_flag", flag_value="nat", help="The same as --mode nat."),
    click.option("-g", "mode_flag", flag_value="dr", help="The same as --mode dr."),
    click.option("-i", "mode_flag", flag_value="tun", help="The same as --mode tun."),
    click.option(
        "--scheduler",
        "-s",
        metavar="NAME",
        help="rr wrr lc wlc (the default) lblc lblcr dh sh sed nq fo ovf mh twos, or a "
        "plug-in: package.module:Class.",
    ),
    click.option(
        "--sched-flags",
        "-b",
        metavar="NAMES",
        help="Scheduler flags: sh-fallback, sh-port, mh-fallback, mh-port.",
    ),
    click.option(
        "--persistent",
        "-p",
        type=click.IntRange(1, 2_678_400),
        metavar="SECONDS",
        help="Send a client to the same server again for this long.",
    ),
    click.option(
        "--pe",
        "engine",
        metavar="NAME",
        help="Tell a client's uses apart: sip, by Call-ID, or package.module:Class.",
    ),
    click.option("--netmask", "-M", metavar="MASK", help="Persistence of whole networks."),
    click.option("--ops", is_flag=True, help="Schedule every UDP packet by itself."),
    click.option(
        "--timeout",
        metavar="TCP,TCPFIN,UDP",
        help="Connection timeouts in seconds; 0 keeps the default (900,120,300).",
    ),
    click.option(
        "--rules",
        metavar="FILE",
        help="Services as ipvsadm -S prints them; - for standard input.",
    ),
)


LOCAL = click.option(
    "--local",
    "local",
    multiple=True,
    metavar="IP",
    help="An address, nobody else's, that --mode fullnat sends from; again for more.",
)


def service_options(function: Callable[..., Any]) -> Callable[..., Any]:
    """Add the options that state services to a command."""
    for option in reversed(_OPTIONS):
        function = option(function)
    return function


def parse_address(text: str) -> int:
    """Return a bare address (one with a port is taken without it); raises UsageError."""
    try:
        return parse_endpoint(unbracketed(text), 0)[0]
    except ValueError as error:
        raise UsageError(str(error)) from None


def parse_service(text: str) -> ServiceKey:
    """Return the service that a --vip names; raises UsageError."""
    endpoint, slash, protocol = text.rpartition("/")
    if not slash or protocol.isdigit() or ":" in protocol:  # that slash stands before a prefix
        endpoint, protocol = text, "tcp"
    if protocol not in PROTOCOLS:
        raise UsageError(f"--vip {text}: protocol {protocol!r} is none of tcp, udp, sctp")
    try:
        key = ipvsadm_rules.parse_service(endpoint, PROTOCOLS[protocol])
    except ValueError as error:
        raise UsageError(f"--vip {text}: {error}; {_VIP_FORMS}") from None
    if key.ranges == ((0, 0),) or ":" not in endpoint:
        raise UsageError(f"--vip {text}: no port; {_VIP_FORMS}")
    return key


def parse_server(
    text: str,
    service: ServiceKey,
    method: int,
    families: Collection[int],
    dscp: int = 0,
    proxy: int = 0,
) -> Server | None:
    """Return the real server that an --rs names for one service; raises UsageError.

    It is nobody's but for services of its kind of IP, if there are such: ``families`` are those
    of all services.
    """
    endpoint, *facts = text.split(",")
    try:
        address, port = parse_endpoint(unbracketed(endpoint), service.port)
    except ValueError as error:
        raise UsageError(f"--rs {text}: {error}; give IP[:PORT][,weight=N]") from None
    if port != service.port and method not in MAPS_PORTS:
        raise UsageError(
            f"--rs {text}: port {port} differs from the service's {service.port}, and only "
            "--mode nat and fullnat can change ports"
        )
    family = family_of(address)
    if family != service.family and family in families:
        return None
    if family != service.family and method != TUNNEL:
        raise UsageError(f"--rs {text}: only --mode tun takes a client to the other kind of IP")
    if not is_unicast(address):
        raise UsageError(f"--rs {text}: {endpoint} is not the address of one host")
    values = {"weight": 1, "upper": 0, "lower": 0}
    for setting in facts:
        name, equals, value = setting.partition("=")
        if name not in values or not equals:
            raise UsageError(f"--rs {text}: {setting!r} is not weight=N, upper=N or lower=N")
        number = number_of(value, 0, WEIGHT_MAX) if value.isdigit() else None
        if number is None:
            raise UsageError(f"--rs {text}: {name} {value!r} is not 0 to {WEIGHT_MAX}")
        values[name] = number
    if values["lower"] > values["upper"]:
        raise UsageError(f"--rs {text}: the lower threshold is above the upper one")
    return Server(ServerKey(address, port), method, **values, dscp=dscp, proxy=proxy)


def _terms(
    family: int,
    scheduler: str | None,
    sched_flags: str | None,
    persistent: int | None,
    netmask: str | None,
    engine: str | None,
    ops: bool,
) -> Terms:
    """Return what the options state about a family's services, by ipvsadm's own rules."""
    words = ["-A", "-f", "1", *(["-6"] if family == 6 else []), "-s"]
    words += [scheduler or DEFAULT_SCHEDULER]
    words += ["-b", sched_flags] if sched_flags else []
    words += ["-p", str(persistent)] if persistent else []
    words += ["-M", netmask] if netmask else []
    words += ["--pe", engine] if engine else []
    words += ["-o"] if ops else []
    try:
        return parse_line(words).terms
    except RuleError as error:
        raise UsageError(str(error)) from None


def _timeouts(text: str) -> tuple[int, int, int]:
    parts = text.split(",")
    if len(parts) != 3 or not all(part.isascii() and part.isdigit() for part in parts):
        raise UsageError(f"--timeout {text}: give three numbers of seconds, as in 900,120,300")
    tcp, tcp_fin, udp = map(int, parts)
    if max(tcp, tcp_fin, udp) > 2_678_400:
        raise UsageError(f"--timeout {text}: the longest is 2678400 seconds, a month")
    return tcp, tcp_fin, udp


def commands_of(
    vips: tuple[str, ...],
    servers: tuple[str, ...],
    mode: str | None,
    mode_flag: str | None,
    scheduler: str | None,
    dscp: int | None = None,
    proxy: bool = False,
    sched_flags: str | None = None,
    persistent: int | None = None,
    netmask: str | None = None,
    engine: str | None = None,
    ops: bool = False,
    timeout: str | None = None,
    rules: str | None = None,
) -> list[Command]:
    """Return what the options state, as commands; raises UsageError with every fault named."""
    stated = vips or servers or mode or mode_flag or scheduler or sched_flags or persistent
    if rules is not None and (stated or netmask or engine or ops or dscp or proxy):
        raise UsageError(
            "--rules states everything: --vip, --rs and what goes with them exclude it"
        )
    if mode and mode_flag and mode != mode_flag:
        raise UsageError(f"--mode {mode} and the forwarding option contradict each other")
    commands = []
    if timeout:
        commands.append(Command("set", timeouts=_timeouts(timeout)))
    if rules is not None:
        return commands + _read_rules(rules)
    if servers and not vips:
        raise UsageError("--rs without --vip: name the virtual service, as in --vip 192.0.2.10:80")
    method = METHODS[mode or mode_flag or "dr"]
    if (method == L3DSR) != bool(dscp):
        raise UsageError("--mode l3dsr and --dscp N go together")
    if proxy and method != METHODS["fullnat"]:
        raise UsageError("--proxy goes with --mode fullnat")
    faults = []
    planned: list[tuple[ServiceKey, Terms]] = []
    for vip in vips:
        try:
            service = parse_service(vip)
            terms = _terms(service.family, scheduler, sched_flags, persistent, netmask, engine, ops)
        except UsageError as error:
            faults.append(str(error))
            continue
        if any(known == service for known, _ in planned):
            faults.append(f"--vip {vip}: given twice")
        planned.append((service, terms))
    families = {service.family for service, _ in planned}
    for service, terms in planned:
        commands.append(Command("A", service, terms))
        seen = set()
        for text in servers:
            try:
                server = parse_server(text, service, method, families, dscp or 0, int(proxy))
            except UsageError as error:
                faults.append(str(error))
                continue
            if server is None:
                continue
            if server.key in seen:
                faults.append(f"--rs {text}: given twice")
            seen.add(server.key)
            commands.append(Command("a", service, server=server))
    if faults:
        raise UsageError("\n".join(dict.fromkeys(faults)))
    return commands


def _read_rules(path: str) -> list[Command]:
    if path == "-":
        return parse_text(sys.stdin, "standard input")
    try:
        with open(path, encoding="utf-8") as file:
            return parse_text(file, path)
    except (OSError, UnicodeDecodeError) as error:
        reason = error.strerror if isinstance(error, OSError) else "it is not text"
        raise UsageError(f"--rules {path}: {reason}") from None


def parse_settings(texts: tuple[str, ...]) -> dict[str, int]:
    """Return settings by name; raises UsageError for one that does not exist or is out of range."""
    values = {}
    for text in texts:
        name, equals, value = text.partition("=")
        number = number_of(value, 0, 2**31 - 1)
        if not equals or number is None:
            raise UsageError(f"{text}: give NAME=VALUE, the value a number")
        settings.check(name, number)
        values[name] = number
    return values


def parse_marks(texts: tuple[str, ...]) -> list[MarkRule]:
    """Return the rules of all --mark; raises UsageError."""
    try:
        return [rule for text in texts for rule in parse_mark(text)]
    except UsageError as error:
        raise UsageError(f"--mark {error}") from None
