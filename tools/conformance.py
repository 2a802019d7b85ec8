"""Does pylvs do what Linux did?  Runs captures of the kernel's IPVS and compares, byte for byte.

    python tools/conformance.py [--json] [--spoken] PATH...    files, folders; .json, .json.xz
    ip netns exec NAME python tools/conformance.py --driver xdp PATH...

One line a capture, ``ok NAME`` or ``FAIL NAME: the first difference``; exit status 0 only if none
failed.  Compared are the frames that left, in order, the states and expiry times wherever they were
listed, and what ipvsadm and /proc printed.  Masked is what no two runs of the kernel share.
"""

import argparse
import contextlib
import json
import lzma
import pathlib
import re
import struct
import sys
from collections.abc import Callable
from typing import Any, Final

if __name__ == "__main__":
    sys.path.insert(0, str(pathlib.Path(__file__).parent.parent))

from pylvs.errors import PylvsError
from pylvs.wire.text import address_of
from tools.guest import ADDRESSES, Guest
from tools.spoken import SpokenGuest
from tools.wired import WiredGuest, wires

_PORTS: Final = "cs"
_DIRECTORS: Final = {address_of(address).to_bytes(4, "big") for address in ADDRESSES}
_IP: Final = 14
_DF: Final = 0x40
_TUNNELS: Final = {4, 47}
_SERVERS: Final = bytes([10, 0, 0])
_ERRORS: Final = {3, 4, 5, 11, 12}
_TIMESTAMP_REPLY: Final = 14
_IN_FRONT: Final = {0, 43, 60}  # of IPv6's fragment header
_FIELDS: Final = (
    (0, "destination MAC"), (6, "source MAC"), (12, "Ethernet type"), (14, "version and IHL"),
    (15, "TOS"), (16, "total length"), (18, "identification"), (20, "flags and offset"),
    (22, "TTL"), (23, "protocol"), (24, "header checksum"), (26, "source"), (30, "destination"),
    (34, "transport header or options"),
)  # fmt: skip
_STATS_DELAY_S: Final = 2.2  # the kernel folds its counters every two seconds


class DifferenceError(Exception):
    """The first thing that was not as Linux had it."""


def unreproducible(frame: bytes, is_own: Callable[[bytes], bool]) -> set[int]:
    """Return which bytes of a frame that left Linux no second run would have again.

    ``is_own`` tells whether an address, four bytes, is the guest's.
    """
    masked: set[int] = set()
    if frame[12:14] == b"\x86\xdd":
        return _unreproducible_ipv6(frame, is_own)
    if frame[12:14] != b"\x08\x00":
        return masked
    header = (frame[_IP] & 0xF) * 4
    body = _IP + header
    protocol = frame[23]
    ours = is_own(frame[26:30])
    # An error that the guest sends to itself about a reply is taken to the server, a hop further.
    born = ours and protocol == 1 and (frame[22] == 64 or frame[30:33] == _SERVERS)
    tunnel = ours and (protocol in _TUNNELS or (protocol == 17 and _is_gue(frame, body)))
    if (born or tunnel) and not frame[20] & _DF:
        masked |= {18, 19, 24, 25}
    if tunnel and protocol == 17 and not struct.unpack_from("!H", frame, 20)[0] & 0x1FFF:
        masked |= {body, body + 1}
        if frame[body + 6 : body + 8] != b"\0\0":
            masked |= {body + 6, body + 7}
    if born and frame[body] == _TIMESTAMP_REPLY:
        masked |= {body + 2, body + 3, *range(body + 12, body + 20)}
    masked |= _timestamps(frame, _IP)
    if protocol == 1 and len(frame) >= body + 28 and frame[body] in _ERRORS:
        stamps = _timestamps(frame, body + 8)
        masked |= stamps | ({body + 2, body + 3} if stamps else set())
    if not tunnel or len(frame) <= body:
        return masked
    inner = body + {4: 0, 17: 12, 47: 8 if frame[body] & 0x80 else 4}.get(protocol, 0)
    if len(frame) >= inner + 20:
        stamps = _timestamps(frame, inner)
        masked |= stamps
        if stamps and inner == body + 8:
            masked |= {body + 4, body + 5}
    return masked


def _unreproducible_ipv6(frame: bytes, is_own: Callable[[bytes], bool]) -> set[int]:
    """Return likewise those of an IPv6 frame: fragments' identification, GUE's source port.

    Flow labels are looked at elsewhere: they begin within a byte.
    """
    masked: set[int] = set()
    kind, body = frame[20], _IP + 40
    while kind in _IN_FRONT and body + 8 <= len(frame):
        kind, body = frame[body], body + (frame[body + 1] + 1) * 8
    if kind == 44:
        masked |= set(range(body + 4, body + 8))
        first = frame[body + 2 : body + 4] < b"\0\x08"
        kind, body = frame[body] if first else 0, body + 8
    if kind == 17 and is_own(frame[22:38]):
        masked |= {body, body + 1}
        if frame[body + 6 : body + 8] != b"\0\0":
            masked |= {body + 6, body + 7}
    return masked


def without_label(frame: bytes, is_own: Callable[[bytes], bool]) -> bytes:
    """Return a frame without the flow label, if the guest itself has made it up."""
    if frame[12:14] != b"\x86\xdd" or not is_own(frame[22:38]) or frame[21] != 64:
        return frame
    return frame[:15] + bytes([frame[15] & 0xF0, 0, 0]) + frame[18:]


def _is_gue(frame: bytes, body: int) -> bool:
    """Whether a UDP packet is a tunnel's: by its GUE header; a later fragment by its source."""
    return frame[body + 8 : body + 10] == b"\0\x04" or frame[26:30] in _DIRECTORS


def _timestamps(frame: bytes, ip: int) -> set[int]:
    """Return the bytes of an IP timestamp option that hold times, and of the header checksum."""
    at, end = ip + 20, min(ip + (frame[ip] & 0xF) * 4, len(frame))
    while at < end and frame[at] != 0:
        if frame[at] == 1:
            at += 1
            continue
        size = max(2, frame[at + 1])
        if frame[at] == 68:
            width = 4 if frame[at + 3] & 0xF == 0 else 8
            slots = range(at + 4, min(at + size, end) - width + 1, width)
            times = {byte for slot in slots for byte in range(slot + width - 4, slot + width)}
            return times | {ip + 10, ip + 11}
        at += size
    return set()


def compare_frames(
    ours: list[tuple[int, bytes]],
    linux: list[tuple[int, bytes]],
    is_own: Callable[[bytes], bool],
) -> None:
    """Raise DifferenceError for the first frame that differs, naming field, and both values."""
    for number, (one, other) in enumerate(zip(ours, linux, strict=False)):
        if one[0] != other[0]:
            raise DifferenceError(
                f"frame {number} left by {_PORTS[one[0]]}, not {_PORTS[other[0]]}"
            )
        masked = unreproducible(other[1], is_own)
        if len(one[1]) != len(other[1]):
            raise DifferenceError(
                f"frame {number} is {len(one[1])} bytes long, not {len(other[1])}: "
                f"{one[1].hex()} for {other[1].hex()}"
            )
        both = (without_label(frame, is_own) for frame in (one[1], other[1]))
        for at, (mine, theirs) in enumerate(zip(*both, strict=True)):
            if mine != theirs and at not in masked:
                field = next(name for begin, name in reversed(_FIELDS) if at >= begin)
                raise DifferenceError(
                    f"frame {number}, byte {at} ({field}) is {mine:02x}, not {theirs:02x}: "
                    f"{one[1].hex()} for {other[1].hex()}"
                )
    if len(ours) != len(linux):
        more = ours[len(linux) :] or linux[len(ours) :]
        raise DifferenceError(
            f"{len(ours)} frames left, not {len(linux)}: {_PORTS[more[0][0]]} {more[0][1].hex()}"
        )


_EXPIRY: Final = re.compile(r"^(\S+\s+)(\d\d):(\d\d)(\s.*)$")
_PROC_EXPIRY: Final = re.compile(r"^(\S+ +(?:[0-9A-Fa-f:]+ ){6}\S+) +(\d+)(.*?)\s*$")


def _split_expiry(line: str, command: str) -> tuple[str, int]:
    """Return a connection's line without its seconds left, and those."""
    found = (_PROC_EXPIRY if "/proc" in command else _EXPIRY).match(line)
    if not found:
        return line, 0
    if "/proc" in command:
        return found[1] + found[3], int(found[2])
    return found[1] + found[4], int(found[2]) * 60 + int(found[3])


def _normal_form(text: str, command: str) -> list[Any]:
    """Return a listing's lines in an order and form that two runs of the kernel share."""
    lines = text.splitlines()
    if command.split()[1:] in (["-h"], ["--help"]):
        return lines[:1]  # the version; what follows is in each program's own words
    if "ip_vs_conn" in command or re.search(r"ipvsadm -\w*[Ll]\w*c|--connection", command):
        return sorted(_split_expiry(line, command) for line in lines)
    if "--rate" in command and "--stats" not in command:
        return [re.sub(r"( +\d+[KMGT]?){5}$", "", line) for line in lines]
    if "ip_vs_stats" in command:
        return _without_rates(lines)
    if command.endswith("/proc/net/ip_vs") or "--nosort" in command:
        services: list[list[str]] = []
        for line in lines[3:]:
            if line.startswith("  ->") and services:
                services[-1].append(line)
            else:
                services.append([line])
        return [*lines[:3], *sorted(services)]
    return lines


def _without_rates(lines: list[str]) -> list[str]:
    """Return the lines of /proc/net/ip_vs_stats or _percpu but for those that hold rates."""
    kept = []
    hides = False
    for line in lines:
        if not hides:
            kept.append(line)
        hides = "Conns/s" in line
    return kept


def compare_text(ours: str, linux: str, command: str) -> None:
    """Raise DifferenceError for the first line that differs."""
    mine, theirs = _normal_form(ours, command), _normal_form(linux, command)
    for one, other in zip(mine, theirs, strict=False):
        if isinstance(one, tuple) and one[0] == other[0] and abs(one[1] - other[1]) <= 1:
            continue
        if one != other:
            raise DifferenceError(f"`{command}` has {one!r}, not {other!r}")
    if len(mine) != len(theirs):
        raise DifferenceError(
            f"`{command}` has {len(mine)} lines, not {len(theirs)}: "
            f"{(mine[len(theirs) :] or theirs[len(mine) :])[0]!r}"
        )


class Run:
    """One capture, step by step."""

    def __init__(self, vector: dict[str, Any], guest: Guest) -> None:
        self.vector = vector
        self.guest = guest
        self.late: list[tuple[int, bytes]] = []
        """What left by itself; Linux's timers may be a quarter of a second behind."""

    def check(self) -> None:
        """Raise DifferenceError for the first difference."""
        for name, value in self.vector["sysctls"].items():
            self.guest.set(name, value)
        for result in self.vector["command_results"]:
            self._command(result)
        events = self.vector["events"]
        at = 0
        while at < len(events):
            at = self._step(events, at)
        self._finish()

    def _step(self, events: list[dict[str, Any]], at: int) -> int:
        """Take one event and what Linux sent after it; return the next one's number."""
        event = events[at]
        ours: list[tuple[int, bytes]] = []
        self.late += self.guest.at(event["t"])
        try:
            if event["dir"] == "cmd":
                self._command(event)
            elif event["dir"] == "in":
                frame = bytes.fromhex(event["hex"])
                ours = self.guest.send(_PORTS.index(event["port"]), frame)
            else:
                at -= 1  # Linux's alone
            linux = []
            while at + 1 < len(events) and events[at + 1]["dir"] == "out":
                at += 1
                self.late += self.guest.at(events[at]["t"])
                linux.append((_PORTS.index(events[at]["port"]), bytes.fromhex(events[at]["hex"])))
            compare_frames(self._with_late(ours, linux), linux, self.guest.is_own)
        except DifferenceError as difference:
            what = event.get("note") or event.get("sum") or event.get("cmd")
            raise DifferenceError(f"event {at} ({what}): {difference}") from None
        return at + 1

    def _with_late(
        self, ours: list[tuple[int, bytes]], linux: list[tuple[int, bytes]]
    ) -> list[tuple[int, bytes]]:
        """Return our frames with those that left by themselves before, where Linux sent them."""
        merged = []
        for place, frame in enumerate(linux):
            left = len(linux) - place
            late = self._late_like(frame) if left > len(ours) else None
            if late is not None:
                self.late.remove(late)
                merged.append(late)
                continue
            if ours:
                merged.append(ours[0])
                ours = ours[1:]
        return merged + ours

    def _late_like(self, frame: tuple[int, bytes]) -> tuple[int, bytes] | None:
        """Return which of the frames that left by themselves is this one of Linux's.

        Its timers are rounded up by as much as an eighth, so they may come in another order.
        """
        for late in self.late:
            with contextlib.suppress(DifferenceError):
                compare_frames([late], [frame], self.guest.is_own)
                return late
        return None

    def _command(self, event: dict[str, Any]) -> None:
        results = self.guest.run(event["cmd"])
        if not all(result.known for result in results):
            return
        compare_text("".join(one.output for one in results), event["stdout"], event["cmd"])
        if results and results[-1].status != event["rc"]:
            raise DifferenceError(
                f"`{event['cmd']}` exits with {results[-1].status}, not {event['rc']}: "
                f"{results[-1].error}"
            )
        error = "".join(one.error for one in results)
        if error != event["stderr"]:
            raise DifferenceError(f"`{event['cmd']}` complains {error!r}, not {event['stderr']!r}")

    def _finish(self) -> None:
        end = self.vector["duration_s"]
        self.late += self.guest.at(end)
        for command, text in self.vector["final"].items():
            if "stat" in command:
                self.guest.at(end + _STATS_DELAY_S)
            output = "".join(one.output for one in self.guest.run(command))
            try:
                compare_text(output, text, command)
            except DifferenceError as difference:
                raise DifferenceError(f"at the end: {difference}") from None
        if self.late:
            raise DifferenceError(f"{len(self.late)} frames left that Linux did not send by itself")


def read(paths: list[str]) -> dict[str, dict[str, Any]]:
    """Return the captures in files and folders, by name."""
    vectors: dict[str, dict[str, Any]] = {}
    for path in map(pathlib.Path, paths):
        files = sorted(path.glob("*.json*")) if path.is_dir() else [path]
        for file in files:
            data = file.read_bytes()
            content = json.loads(lzma.decompress(data) if file.suffix == ".xz" else data)
            if "events" in content:
                vectors[content["name"]] = content
            else:
                vectors |= content
    return vectors


def check(vector: dict[str, Any], kind: type[Guest] = Guest) -> str:
    """Return the first difference, or nothing; ``kind`` is what takes the kernel's place."""
    try:
        with contextlib.closing(kind()) as guest:
            Run(vector, guest).check()
    except (DifferenceError, PylvsError) as difference:
        return str(difference)
    return ""


def main() -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n", 1)[0])
    parser.add_argument("--json", action="store_true", help="print one JSON object instead")
    parser.add_argument(
        "--spoken", action="store_true", help="run pylvs ipvsadm, over a control socket"
    )
    parser.add_argument(
        "--driver",
        choices=("packet", "xdp", "tap"),
        help="by real interfaces, made for it: in a network namespace of its own (ip netns exec)",
    )
    parser.add_argument("--workers", type=int, default=1, help="so many, with --driver")
    parser.add_argument("paths", nargs="+", metavar="PATH")
    options = parser.parse_args()
    kind: type[Guest] = SpokenGuest if options.spoken else Guest
    if options.driver:
        kind = WiredGuest
        kind.driver_name, kind.workers = options.driver, options.workers
    results = {}
    for name, vector in read(options.paths).items():
        results[name] = check(vector, kind)
        if not options.json:
            print(f"FAIL {name}: {results[name]}" if results[name] else f"ok {name}", flush=True)
    failed = sum(map(bool, results.values()))
    told: dict[str, Any] = {"passed": len(results) - failed, "failed": failed, "results": results}
    if options.driver:
        used = wires(options.driver, options.workers)
        told |= {"by_worker": used.by_worker, "by_xdp": used.by_xdp}
    if options.json:
        print(json.dumps(told))
    else:
        print(f"{len(results) - failed} passed, {failed} failed")
    return 1 if failed or not results else 0


if __name__ == "__main__":
    sys.exit(main())
