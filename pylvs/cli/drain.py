"""``pylvs drain``: a server is given nothing new, and has its time to finish."""

import json
import re
import sys
import time
from typing import Any

import click

from pylvs.cli.changes import AS_JSON, CONTROL, place_of
from pylvs.control.client import speak
from pylvs.errors import HostError, UsageError

_EPILOG = """\b
Examples
  pylvs drain tcp:192.0.2.10:80 10.0.0.11
  pylvs drain tcp:192.0.2.10:80 10.0.0.11:8080 --deadline 5m --then reset

\b
The server's weight becomes 0, and persistent clients are scheduled anew.  What it has it keeps
until the deadline; then, by --then, longer (keep), or the director forgets it (reset), so that TCP
clients are reset with their next packet.  Give the server weight again to have it back.
Exit status: 0 nothing is left, 1 something is, or there is no director, 2 usage.
"""
_UNITS = {"s": 1, "m": 60, "h": 3_600}
_LOOK_S = 0.5
_TELL_S = 5.0


@click.command(epilog=_EPILOG)
@click.argument("service")
@click.argument("server")
@click.option(
    "--deadline", default="60s", show_default=True, metavar="TIME", help="As 90s, 5m, 1h."
)
@click.option("--then", type=click.Choice(["keep", "reset"]), default="keep", show_default=True)
@AS_JSON
@CONTROL
def command(
    service: str, server: str, deadline: str, then: str, as_json: bool, control: str | None
) -> None:
    """Drain SERVER of SERVICE, and show what remains."""
    patience = _seconds(deadline)
    where = place_of(service)
    found = _find(where, service, server, control)
    place = f"{where}/servers/{found['server']}"
    counted = ("active", "inactive", "templates", "counters", "rates")
    stated = {name: value for name, value in found.items() if name not in counted}
    speak("PUT", place, json.dumps({**stated, "weight": 0}), control)
    speak("POST", f"{place}/forget?what=templates", "", control)
    left = _wait(lambda: _find(where, service, server, control), patience, as_json)
    if left and then == "reset":
        speak("POST", f"{place}/forget?what=connections", "", control)
        left = _left(_find(where, service, server, control))
        click.echo(f"{found['server']}: the rest was forgotten", err=True)
    if as_json:
        click.echo(json.dumps({"server": found["server"], "left": left}))
    if left:
        raise HostError(f"{found['server']} has {left} connections left; its weight stays 0")
    click.echo(f"{found['server']}: drained", err=True)


def _seconds(text: str) -> float:
    match = re.fullmatch(r"(\d+)([smh]?)", text)
    if match is None:
        raise UsageError(f"--deadline {text}: give a time, as in 90s, 5m, 1h")
    return int(match[1]) * _UNITS[match[2] or "s"]


def _find(where: str, service: str, server: str, control: str | None) -> dict[str, Any]:
    answer = speak("GET", where, "", control)
    kind, _, port = service.rpartition(":")
    port = port if kind not in ("mark", "mark6") and port.isdigit() else "0"  # else it spans ports
    for one in answer["servers"]:
        if one["server"] in (server, f"{server}:{port}"):
            found: dict[str, Any] = one
            return found
    names = ", ".join(one["server"] for one in answer["servers"]) or "none"
    raise UsageError(f"no server {server} in {service}; there are: {names}")


def _left(server: dict[str, Any]) -> int:
    return int(server["active"]) + int(server["inactive"])


def _wait(look: Any, patience: float, quiet: bool) -> int:
    """Look until nothing is left or the time is over, telling how it goes; return what is left."""
    began = time.monotonic()
    told = -_TELL_S
    first = 0
    while True:
        server = look()
        left, spent = _left(server), time.monotonic() - began
        first = max(first, left)
        if not quiet and (sys.stderr.isatty() or spent - told >= _TELL_S or not left):
            told = spent
            end = "\r" if sys.stderr.isatty() and left else "\n"
            bar = "#" * round(20 * (first - left) / first) if first else ""
            text = f"[{bar:<20}] {server['active']} active, {server['inactive']} inactive"
            print(f"{text}, {spent:.0f} of {patience:.0f} s ", end=end, file=sys.stderr, flush=True)
        if not left or spent >= patience:
            return left
        time.sleep(min(_LOOK_S, max(0.0, patience - spent)))
