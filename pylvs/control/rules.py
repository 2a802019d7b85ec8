"""Rules text: what ``ipvsadm -S`` prints and ``ipvsadm -R`` reads, a command a line.

    -A -t 192.0.2.10:80 -s wrr
    -a -t 192.0.2.10:80 -r 10.0.0.11:8080 -m -w 3

Options, defaults and phrases are ipvsadm 1.31's.  Beyond it, blank lines and ``#`` comments are
allowed.  An option that pylvs does not have yet is named and refused.
"""

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Final

from pylvs.control.model import (
    DEFAULT_SCHEDULER,
    MASQUERADE,
    PROTOCOLS,
    ROUTE,
    TUNNEL,
    WEIGHT_MAX,
    Command,
    Server,
    ServerKey,
    ServiceKey,
    Table,
)
from pylvs.errors import RuleError, UsageError
from pylvs.wire.text import address_of

_COMMANDS: Final = {
    "A": ("add-service", "A"),
    "E": ("edit-service", "E"),
    "D": ("delete-service", "D"),
    "C": ("clear", "C"),
    "a": ("add-server", "a"),
    "e": ("edit-server", "e"),
    "d": ("delete-server", "d"),
}
_COMMAND_BY_NAME: Final = dict(_COMMANDS.values()) | {"set": "set"}

# Short letter, long name, takes an argument.
_OPTIONS: Final = (
    ("t", "tcp-service", True),
    ("u", "udp-service", True),
    ("s", "scheduler", True),
    ("r", "real-server", True),
    ("m", "masquerading", False),
    ("g", "gatewaying", False),
    ("i", "ipip", False),
    ("w", "weight", True),
    ("n", "numeric", False),
    ("f", "fwmark-service", True),
    ("6", "ipv6", False),
    ("p", "persistent", False),
    ("M", "netmask", True),
    ("o", "ops", False),
    ("b", "sched-flags", True),
    ("x", "u-threshold", True),
    ("y", "l-threshold", True),
    ("", "pe", True),
    ("", "sctp-service", True),
    ("", "tun-type", True),
    ("", "tun-port", True),
    ("", "tun-nocsum", False),
    ("", "tun-csum", False),
    ("", "tun-remcsum", False),
)
_LONG_BY_SHORT: Final = {short: name for short, name, _ in _OPTIONS if short}
_TAKES_ARGUMENT: Final = {name: takes for _, name, takes in _OPTIONS}
_NOT_BUILT: Final = {name for _, name, _ in _OPTIONS[9:]}
_KERNEL_SCHEDULERS: Final = frozenset(
    ["lblc", "lblcr", "dh", "sh", "sed", "nq", "fo", "ovf", "mh", "twos"]
)
_PERMITTED: Final = {
    "A": {"scheduler"},
    "E": {"scheduler"},
    "D": set[str](),
    "a": {"real-server", "forwarding-method", "weight"},
    "e": {"real-server", "forwarding-method", "weight"},
    "d": {"real-server"},
}
_TRY: Final = "Try `ipvsadm -h' or 'ipvsadm --help' for more information."
_METHODS: Final = {"masquerading": MASQUERADE, "gatewaying": ROUTE, "ipip": TUNNEL}


@dataclass
class _Line:
    """A line taken apart: the command, and each option's argument under its long name."""

    verb: str
    options: dict[str, str]
    arguments: list[str]


def parse_line(words: list[str]) -> Command:
    """Return the command that the words of one line give; raises RuleError."""
    line = _take_apart([word for word in words if word != "ipvsadm"])
    if line.verb == "C":
        return Command("C")
    if line.verb == "set":
        return Command("set", timeouts=_timeouts(line.arguments))
    if line.arguments:
        raise RuleError(f"unexpected argument {line.arguments[0]}")
    _check_options(line)
    service = _service_key(line.options)
    if line.verb in "AED":
        if service.port == 0 and line.verb == "A":
            raise RuleError("Zero port specified for non-persistent service")
        scheduler = line.options.get("scheduler", DEFAULT_SCHEDULER)
        if scheduler in _KERNEL_SCHEDULERS:
            raise RuleError(f"scheduler {scheduler} is not built yet; rr, wrr, lc and wlc are")
        return Command(line.verb, service, scheduler)
    return Command(line.verb, service, server=_server(line, service))


def _take_apart(words: list[str]) -> _Line:
    if not words:
        raise RuleError(_TRY, 255)
    first, rest = words[0], words[1:]
    if first.startswith("--"):
        verb = _COMMAND_BY_NAME.get(first[2:], "")
    elif first.startswith("-") and len(first) > 1:
        verb = first[1] if first[1] in _COMMANDS else ""
        if len(first) > 2:
            rest = ["-" + first[2:], *rest]
    else:
        verb = ""
    if not verb:
        raise RuleError(_TRY, 255)
    line = _Line(verb, {}, [])
    queue = list(rest)
    while queue:
        word = queue.pop(0)
        if verb == "set" or not word.startswith("-") or word == "-":
            line.arguments.append(word)
        elif word.startswith("--"):
            _take_long(line, word, queue)
        else:
            _take_short(line, word, queue)
    return line


def _take_long(line: _Line, word: str, queue: list[str]) -> None:
    name, equals, value = word[2:].partition("=")
    if name in _COMMAND_BY_NAME:
        raise RuleError(f"invalid option `{word}'")
    if name not in _TAKES_ARGUMENT:
        raise RuleError(f"{word}: unknown option", 255)
    if _TAKES_ARGUMENT[name] and not equals:
        if not queue:
            raise RuleError(f"{word}: missing argument", 255)
        value = queue.pop(0)
    _set_option(line, name, value)


def _take_short(line: _Line, word: str, queue: list[str]) -> None:
    letters = word[1:]
    while letters:
        letter, letters = letters[0], letters[1:]
        if letter in _COMMANDS:
            raise RuleError(f"invalid option `-{letter}'")
        if letter not in _LONG_BY_SHORT:
            raise RuleError(f"-{letter}: unknown option", 255)
        name = _LONG_BY_SHORT[letter]
        value = ""
        if _TAKES_ARGUMENT[name]:
            value, letters = letters.removeprefix("="), ""
            if not value:
                if not queue:
                    raise RuleError(f"-{letter}: missing argument", 255)
                value = queue.pop(0)
        _set_option(line, name, value)


def _set_option(line: _Line, name: str, value: str) -> None:
    if name in _NOT_BUILT:
        raise RuleError(f"option --{name} is not built yet")
    shown = name
    if name in ("tcp-service", "udp-service"):
        value = f"{name[:3]} {value}"
        shown = "service-address"
    elif name in _METHODS:
        value = name
        shown = "forwarding-method"
    if shown in line.options:
        raise RuleError(f"multiple '{shown}' options specified")
    line.options[shown] = value


def _check_options(line: _Line) -> None:
    name = _COMMANDS[line.verb][0]
    required = ["service-address"] + (["real-server"] if line.verb in "aed" else [])
    for option in required:
        if option not in line.options:
            raise RuleError(f"You need to supply the '{option}' option for the '{name}' command")
    for option in line.options:
        if option not in required and option not in _PERMITTED[line.verb]:
            raise RuleError(f"Illegal '{option}' option with the '{name}' command")


def parse_endpoint(text: str, default_port: int) -> tuple[int, int]:
    """Return (address, port) of ``host[:port]``; raises ValueError."""
    host, colon, port_text = text.partition(":")
    port = default_port
    if colon:
        if not port_text.isascii() or not port_text.isdigit() or int(port_text) > 65_535:
            raise ValueError(f"{port_text!r} is not a port")
        port = int(port_text)
    return address_of(host), port


def _service_key(options: dict[str, str]) -> ServiceKey:
    protocol, _, text = options["service-address"].partition(" ")
    try:
        address, port = parse_endpoint(text, 0)
    except ValueError:
        raise RuleError("illegal virtual server address[:port] specified") from None
    return ServiceKey(PROTOCOLS[protocol], address, port)


def _server(line: _Line, service: ServiceKey) -> Server:
    try:
        address, port = parse_endpoint(line.options["real-server"], service.port)
    except ValueError:
        raise RuleError("illegal real server address[:port] specified") from None
    method = _METHODS[line.options.get("forwarding-method", "gatewaying")]
    if method != MASQUERADE and line.verb != "d":
        port = service.port  # ipvsadm overwrites it without a word
    weight_text = line.options.get("weight", "1")
    if not weight_text.isascii() or not weight_text.isdigit() or int(weight_text) > WEIGHT_MAX:
        raise RuleError("illegal weight specified")
    return Server(ServerKey(address, port), method, int(weight_text))


def _timeouts(arguments: list[str]) -> tuple[int, int, int]:
    if len(arguments) != 3:
        raise RuleError("--set option requires 3 timeout values")
    for text in arguments:
        if not text.isascii() or not text.isdigit() or int(text) >= 2**31 // 1_000:
            raise RuleError(f"invalid timeout value `{text}' specified")
    tcp, tcp_fin, udp = map(int, arguments)
    return tcp, tcp_fin, udp


def parse_text(lines: Iterable[str], name: str) -> list[Command]:
    """Return the commands of a whole text, tried on an empty table.

    Raises UsageError naming every fault with its line, so that a text is taken whole or not at all.
    """
    commands: list[Command] = []
    faults: list[str] = []
    table = Table()
    for number, text in enumerate(lines, 1):
        words = text.partition("#")[0].split()
        if not words:
            continue
        try:
            command = parse_line(words)
            table.apply(command)
        except RuleError as error:
            faults.append(f"{name}:{number}: {error}")
        else:
            commands.append(command)
    if faults:
        raise UsageError("\n".join(faults))
    return commands
