"""``pylvs service``, ``connection``, ``stats``, ``settings``: what a running director says; and
``pylvs reasons``: what its counters mean.
"""

import json
from typing import Any
from urllib.parse import urlencode

import click

from pylvs.cli.changes import AS_JSON, CONTROL, place_of
from pylvs.cli.services import parse_settings
from pylvs.control.client import speak

_NAMES = """\b
A service is named tcp:IP:PORT (udp:, sctp:) or mark:N, a server IP:PORT.
"""
_COUNTERS = ("connections", "in_packets", "out_packets", "in_bytes", "out_bytes")


def _print_table(titles: tuple[str, ...], rows: list[tuple[Any, ...]], words: int = 1) -> None:
    """Print rows under titles; all but the first columns are numbers."""
    from rich.console import Console
    from rich.table import Table

    table = Table(box=None, pad_edge=False, header_style="bold")
    for number, title in enumerate(titles):
        table.add_column(title, justify="left" if number < words else "right", no_wrap=True)
    for row in rows:
        table.add_row(*map(str, row))
    Console(width=160, soft_wrap=True, markup=False, emoji=False).print(table)


@click.command(epilog=_NAMES)
@click.argument("name", required=False)
@click.option("--rates", is_flag=True, help="A second, instead of since the start.")
@AS_JSON
@CONTROL
def service(name: str | None, rates: bool, as_json: bool, control: str | None) -> None:
    """Show all virtual services, or one, with their servers and counters."""
    where = place_of(name) if name else "/services"
    answer = speak("GET", where, "", control)
    if as_json:
        click.echo(json.dumps(answer))
        return
    kind = "rates" if rates else "counters"
    rows: list[tuple[Any, ...]] = []
    for one in [answer] if name else answer:
        counts = [one[kind][counter] for counter in _COUNTERS]
        rows.append((one["service"], one["scheduler"], "", "", "", *counts))
        for server in one["servers"]:
            counts = [server[kind][counter] for counter in _COUNTERS]
            facts = (server["weight"], server["active"], server["inactive"])
            rows.append((f"  {server['server']}", server["method"], *facts, *counts))
    titles = ("Service", "", "Weight", "Active", "Inactive", "Conns", "In", "Out", "InB", "OutB")
    _print_table(titles, rows, words=2)


@click.command(epilog=_NAMES)
@click.option("--client", metavar="IP[:PORT]")
@click.option("--service", "virtual", metavar="NAME")
@click.option("--server", metavar="IP[:PORT]")
@click.option("--state", metavar="STATE", help="ESTABLISHED, say.")
@click.option("--limit", type=click.IntRange(1, 100_000), default=1_000, show_default=True)
@click.option("--after", type=int, default=0, help="Go on where the answer before said.")
@AS_JSON
@CONTROL
def connection(as_json: bool, control: str | None, **wanted: Any) -> None:
    """Show connections: all, or those of a client, service or server."""
    query = {name: value for name, value in wanted.items() if value is not None}
    if "virtual" in query:
        query["service"] = query.pop("virtual")
    asked = urlencode(query, errors="surrogateescape")
    answer = speak("GET", f"/connections?{asked}", "", control)
    if as_json:
        click.echo(json.dumps(answer))
        return
    fields = ("protocol", "client", "virtual", "server", "state", "expires")
    rows = [tuple(one[field] for field in fields) for one in answer["connections"]]
    _print_table(("", "Client", "Virtual", "Server", "State", "Seconds"), rows, words=5)
    if "next" in answer:
        click.echo(f"there are more: --after {answer['next']}", err=True)


@click.command()
@AS_JSON
@CONTROL
def stats(as_json: bool, control: str | None) -> None:
    """Show all traffic together, and what became of each frame (`pylvs reasons` explains)."""
    answer = speak("GET", "/stats", "", control)
    if as_json:
        click.echo(json.dumps(answer))
        return
    both = zip(answer["counters"].items(), answer["rates"].values(), strict=True)
    _print_table(("", "Total", "A second"), [(name, total, rate) for (name, total), rate in both])
    offload = answer["offload"]
    click.echo(f"\n{answer['connections']} connections")
    click.echo(
        f"{offload['packets']} packets by the kernel, {offload['flows']} flows offered to it\n"
    )
    _print_table(("Reason", "Frames"), list(answer["reasons"].items()))


@click.command()
@click.argument("changes", nargs=-1, metavar="[NAME=VALUE]...")
@AS_JSON
@CONTROL
def settings(changes: tuple[str, ...], as_json: bool, control: str | None) -> None:
    """Show the settings, by the kernel's names, or change some: all of them or none."""
    values = parse_settings(changes)
    method, body = ("PUT", json.dumps(values)) if values else ("GET", "")
    answer = speak(method, "/settings", body, control)
    if as_json:
        click.echo(json.dumps(answer))
        return
    for name, number in answer.items():
        click.echo(f"{name} = {number}")


@click.command()
def reasons() -> None:
    """List every reason a frame can get, its healthy value, and what it means."""
    from rich.console import Console
    from rich.table import Table

    from pylvs.frames import Reason

    table = Table(box=None, pad_edge=False, header_style="bold")
    for title in ("Reason", "Healthy", "Meaning"):
        table.add_column(title)
    for reason in Reason:
        table.add_row(reason.name.lower(), reason.healthy, reason.help)
    Console(markup=False, emoji=False).print(table)
