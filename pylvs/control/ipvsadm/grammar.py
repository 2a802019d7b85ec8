"""ipvsadm 1.31's command line: its options, which commands take them, and what it says otherwise.

Taken apart as popt does: clustered letters, ``-p100``, ``--option=value``, options anywhere.  The
first word has to be the command.
"""

from collections.abc import Set
from dataclasses import dataclass, field
from typing import Final

from pylvs.errors import RuleError

TRY: Final = "Try `ipvsadm -h' or 'ipvsadm --help' for more information."
USAGE: Final = 255  # popt's own complaints; ipvsadm's checks exit with 2

# Letter, long name, the command's name in messages.
_COMMANDS: Final = (
    ("A", "add-service", "add-service"),
    ("E", "edit-service", "edit-service"),
    ("D", "delete-service", "delete-service"),
    ("C", "clear", "flush"),
    ("R", "restore", "restore"),
    ("S", "save", "save"),
    ("a", "add-server", "add-server"),
    ("e", "edit-server", "edit-server"),
    ("d", "delete-server", "delete-server"),
    ("L", "list", "list"),
    ("l", "list", "list"),
    ("Z", "zero", "zero"),
    ("", "set", "set"),
    ("", "start-daemon", "start-daemon"),
    ("", "stop-daemon", "stop-daemon"),
    ("h", "help", "help"),
    ("v", "version", "version"),
)
_VERB_BY_NAME: Final = {
    name: {"l": "L", "h": "help", "v": "version", "": name}.get(letter, letter)
    for letter, name, _ in _COMMANDS
} | {"start-daemon": "start", "stop-daemon": "stop", "list": "L"}
_NAME_BY_LETTER: Final = {letter: name for letter, name, _ in _COMMANDS if letter}
_TITLE_BY_VERB: Final = {_VERB_BY_NAME[name]: title for _, name, title in _COMMANDS}

_NO, _YES, _MAYBE = range(3)  # whether an option takes an argument

# Letter, long name, argument, its name in messages.
_OPTIONS: Final = (
    ("n", "numeric", _NO, "numeric"),
    ("c", "connection", _NO, "connection"),
    ("t", "tcp-service", _YES, "service-address"),
    ("u", "udp-service", _YES, "service-address"),
    ("", "sctp-service", _YES, "service-address"),
    ("f", "fwmark-service", _YES, "service-address"),
    ("s", "scheduler", _YES, "scheduler"),
    ("p", "persistent", _MAYBE, "persistent"),
    ("M", "netmask", _YES, "netmask"),
    ("r", "real-server", _YES, "real-server"),
    ("m", "masquerading", _NO, "forwarding-method"),
    ("g", "gatewaying", _NO, "forwarding-method"),
    ("i", "ipip", _NO, "forwarding-method"),
    ("", "l3dsr", _YES, "forwarding-method"),  # this and the next are not ipvsadm's
    ("", "fullnat", _MAYBE, "forwarding-method"),
    ("w", "weight", _YES, "weight"),
    ("x", "u-threshold", _YES, "u-threshold"),
    ("y", "l-threshold", _YES, "l-threshold"),
    ("", "mcast-interface", _YES, "mcast-interface"),
    ("", "timeout", _NO, "timeout"),
    ("", "daemon", _NO, "daemon"),
    ("", "stats", _NO, "stats"),
    ("", "rate", _NO, "rate"),
    ("", "thresholds", _NO, "thresholds"),
    ("", "persistent-conn", _NO, "persistent-conn"),
    ("", "nosort", _NO, "nosort"),
    ("", "sort", _NO, ""),
    ("", "syncid", _YES, "syncid"),
    ("X", "exact", _NO, "exact"),
    ("6", "ipv6", _NO, ""),
    ("o", "ops", _NO, "ops"),
    ("", "pe", _YES, "pe"),
    ("b", "sched-flags", _YES, "sched-flags"),
    ("", "sync-maxlen", _YES, "sync-maxlen"),
    ("", "mcast-group", _YES, "mcast-group"),
    ("", "mcast-port", _YES, "mcast-port"),
    ("", "mcast-ttl", _YES, "mcast-ttl"),
    ("", "tun-info", _NO, "tun-info"),
    ("", "tun-type", _YES, "tun-type"),
    ("", "tun-port", _YES, "tun-port"),
    ("", "tun-nocsum", _NO, "tun-nocsum"),
    ("", "tun-csum", _NO, "tun-csum"),
    ("", "tun-remcsum", _NO, "tun-remcsum"),
)
_LONG_BY_SHORT: Final = {letter: name for letter, name, _, _ in _OPTIONS if letter}
_ARGUMENT: Final = {name: argument for _, name, argument, _ in _OPTIONS}
_SHOWN: Final = {name: shown for _, name, _, shown in _OPTIONS}
_ORDER: Final = list(dict.fromkeys(shown for *_, shown in _OPTIONS if shown))
_UNSHOWN: Final = {name for _, name, _, shown in _OPTIONS if not shown}

_SERVICE_OPTIONS: Final = {"scheduler", "persistent", "netmask", "ops", "pe", "sched-flags"}
_SERVER_OPTIONS: Final = {
    "forwarding-method", "weight", "u-threshold", "l-threshold",
    "tun-type", "tun-port", "tun-nocsum", "tun-csum", "tun-remcsum",
}  # fmt: skip
_ONE_OF: Final = ("connection", "service-address", "timeout", "daemon")
_LIST_OPTIONS: Final = {
    "numeric", "stats", "rate", "thresholds", "persistent-conn", "nosort", "syncid", "exact",
    "tun-info", *_ONE_OF,
}  # fmt: skip
_DAEMON_OPTIONS: Final = {
    "mcast-interface", "syncid", "mcast-group", "mcast-port", "mcast-ttl", "sync-maxlen",
}  # fmt: skip
# What each command needs, and what else it takes.
_TAKES: Final[dict[str, tuple[set[str], set[str]]]] = {
    "A": ({"service-address"}, _SERVICE_OPTIONS),
    "E": ({"service-address"}, _SERVICE_OPTIONS),
    "D": ({"service-address"}, set()),
    "C": (set(), set()),
    "R": (set(), set()),
    "S": (set(), {"numeric"}),
    "a": ({"service-address", "real-server"}, _SERVER_OPTIONS),
    "e": ({"service-address", "real-server"}, _SERVER_OPTIONS),
    "d": ({"service-address", "real-server"}, set()),
    "L": (set(), _LIST_OPTIONS),
    "Z": (set(), {"service-address"}),
    "set": (set(), set()),
    "start": (set(), _DAEMON_OPTIONS),
    "stop": (set(), {"syncid"}),
    "help": (set(), set()),
    "version": (set(), set()),
}


@dataclass
class Line:
    """A line taken apart: ``options`` in the order given, (name in messages, long name, value)."""

    verb: str
    options: list[tuple[str, str, str]] = field(default_factory=list)
    arguments: list[str] = field(default_factory=list)
    _values: dict[str, str] = field(default_factory=dict)  # of the options, by name in messages

    @property
    def title(self) -> str:
        """The command's name in messages."""
        return _TITLE_BY_VERB[self.verb]

    @property
    def given(self) -> Set[str]:
        """What was given, by its names in messages."""
        return self._values.keys()

    def has(self, shown: str) -> bool:
        return shown in self._values

    def value(self, shown: str, default: str = "") -> str:
        return self._values.get(shown, default)

    def add(self, shown: str, name: str, value: str) -> None:
        self.options.append((shown, name, value))
        self._values.setdefault(shown, value)


def take_apart(words: list[str]) -> Line:
    """Return the line that these words are; raises RuleError as ipvsadm and popt complain."""
    first, rest = words[0], words[1:]
    name = first[2:] if first.startswith("--") else ""
    if not name and first.startswith("-") and len(first) > 1:
        name = _NAME_BY_LETTER.get(first[1], "")
        if len(first) > 2:
            rest = ["-" + first[2:], *rest]
    if name not in _VERB_BY_NAME:
        raise RuleError(TRY, USAGE)
    line = Line(_VERB_BY_NAME[name])
    queue = list(rest)
    while queue:
        word = queue.pop(0)
        if not word.startswith("-") or word == "-":
            line.arguments.append(word)
        elif word.startswith("--"):
            _take_long(line, word, queue)
        else:
            _take_letters(line, word[1:], queue)
    return line


def _take_long(line: Line, word: str, queue: list[str]) -> None:
    name, equals, value = word[2:].partition("=")
    if name in _VERB_BY_NAME:
        raise RuleError(f"invalid option `{word}'")
    if name not in _ARGUMENT:
        raise RuleError(f"{word}: unknown option", USAGE)
    if not equals:
        value = _argument_of(name, word, queue)
    _add(line, name, value)


def _take_letters(line: Line, letters: str, queue: list[str]) -> None:
    while letters:
        letter, letters = letters[0], letters[1:]
        if letter in _NAME_BY_LETTER:
            raise RuleError(f"invalid option `-{letter}'")
        if letter not in _LONG_BY_SHORT:
            raise RuleError(f"-{letter}: unknown option", USAGE)
        name = _LONG_BY_SHORT[letter]
        value = ""
        if _ARGUMENT[name] != _NO:
            value, letters = letters.removeprefix("="), ""
            if not value:
                value = _argument_of(name, f"-{letter}", queue)
        _add(line, name, value)


def _argument_of(name: str, word: str, queue: list[str]) -> str:
    if _ARGUMENT[name] == _NO:
        return ""
    if _ARGUMENT[name] == _MAYBE:
        return queue.pop(0) if queue and not queue[0].startswith("-") else ""
    if not queue:
        raise RuleError(f"{word}: missing argument", USAGE)
    return queue.pop(0)


def _add(line: Line, name: str, value: str) -> None:
    shown = _SHOWN[name]
    if shown and line.has(shown):
        raise RuleError(f"multiple '{shown}' options specified")
    line.add(shown or name, name, value)


def check(line: Line) -> None:
    """Refuse options that the command does not take or has too few or too many of."""
    needs, takes = _TAKES[line.verb]
    given = line.given
    if line.verb != "L" and needs <= given <= needs | takes | _UNSHOWN:
        return  # as most lines are
    chosen = ""
    for shown in _ORDER:
        if not line.has(shown):
            if shown in needs:
                raise RuleError(
                    f"You need to supply the '{shown}' option for the '{line.title}' command"
                )
            continue
        if shown not in needs and shown not in takes:
            raise RuleError(f"Illegal '{shown}' option with the '{line.title}' command")
        if line.verb == "L" and shown in _ONE_OF:
            if chosen:
                raise RuleError(
                    f"The option '{shown}' conflicts with the '{chosen}' option in the "
                    f"'{line.title}' command"
                )
            chosen = shown
    if line.verb == "L":
        _check_list(line)


def _check_list(line: Line) -> None:
    def any_of(*names: str) -> bool:
        return any(line.has(name) for name in names)

    counters = any_of("stats", "rate", "thresholds")
    if (any_of("connection", "timeout", "daemon") and counters) or (
        any_of("timeout", "daemon") and line.has("persistent-conn")
    ):
        raise RuleError("options conflicts in the list command")
