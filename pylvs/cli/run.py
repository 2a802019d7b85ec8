"""``pylvs run``: a director in the foreground."""

import logging
import signal
import sys
from typing import TYPE_CHECKING, Any, Final

import click

from pylvs.cli.progress import while_compiling
from pylvs.cli.services import commands_of, parse_address, service_options
from pylvs.cli.surroundings import parse_mark, parse_settings
from pylvs.control.ipvsadm import render
from pylvs.control.model import METHOD_NAMES, METHODS
from pylvs.errors import UsageError

if TYPE_CHECKING:
    from pylvs.control.daemon import Daemon

PORTS_LIMIT: Final = 16
_EPILOG = """\b
Examples
  pylvs run --iface eth0 --vip 192.168.0.211:80 --rs 192.168.0.5 \\
            --rs 192.168.0.8,weight=2 --mode dr --scheduler wrr
  pylvs run --iface eth0 --iface eth1 --vip 10.133.146.47:80 \\
            --rs 192.168.79.129:8080 --rs 192.168.79.131:8080 --mode nat
  pylvs run --iface eth0 --vip 10.0.0.53:53/udp --rs 10.0.0.5
  pylvs run --iface eth0 --rules /etc/ipvsadm.rules
  ipvsadm -Sn | pylvs run --iface eth0 --rules -
  pylvs run --iface eth0 --vip 10.0.0.80:443 --rs 10.0.0.5 --rs 10.0.0.6 -s sh -b sh-port -p 300
  pylvs run --iface eth0 --rules web.rules --mark 5=tcp/10.0.0.80:80,443 --sysctl sloppy_tcp=1

\b
Standard output: the plan, then the final counters.  Standard error: `pylvs: ready`, warnings.
Exit status: 0 stopped by SIGINT or SIGTERM, 1 failure, 2 usage.
"""


@click.command(epilog=_EPILOG)
@click.option(
    "--iface",
    "interfaces",
    multiple=True,
    metavar="NAME",
    help="Interface to direct on; again for more.",
)
@click.option("--tap", metavar="NAME", help="Direct on a TAP device, made if it does not exist.")
@click.option("--tun", metavar="NAME", help="Direct on a TUN device (bare IP packets).")
@service_options
@click.option(
    "--dip",
    metavar="IP[/LEN]",
    help="The director's address: source of tunnels, and on a TAP device of ARP.",
)
@click.option("--gateway", metavar="IP", help="Next hop for everybody else, on a TAP device.")
@click.option(
    "--driver",
    type=click.Choice(["auto", "packet"]),
    default="auto",
    show_default=True,
    help="How frames are read from an interface.",
)
@click.option(
    "--connections",
    type=click.IntRange(1, 1 << 24),
    default=1_048_576,
    show_default=True,
    metavar="N",
    help="Room in the connection table, 72 bytes each.",
)
@click.option(
    "--sysctl",
    "settings",
    multiple=True,
    metavar="NAME=VALUE",
    help="A setting by its kernel name, net.ipv4.vs.NAME or NAME; again for more.",
)
@click.option(
    "--mark",
    "marks",
    multiple=True,
    metavar="MARK=[PROTO/]NET[:PORTS]",
    help="Give packets to NET a firewall mark, for services stated as -f MARK in --rules.  PORTS "
    "as in 80,443,8000-8999; the last rule that matches counts.",
)
@click.option("--control", metavar="PATH", help="Where commands reach this director.")
@click.option("--trace", metavar="FILE", help="Write all frames to a capture (much slower).")
@click.option(
    "--stats-interval",
    type=click.FloatRange(min=0.1),
    metavar="SECONDS",
    help="Print the counters this often.",
)
@click.option(
    "--log-level",
    type=click.Choice(["debug", "info", "warning", "error"]),
    default="warning",
    show_default=True,
)
def command(
    interfaces: tuple[str, ...],
    tap: str | None,
    tun: str | None,
    dip: str | None,
    gateway: str | None,
    driver: str,
    connections: int,
    settings: tuple[str, ...],
    marks: tuple[str, ...],
    control: str | None,
    trace: str | None,
    stats_interval: float | None,
    log_level: str,
    **stated: Any,
) -> None:
    """Balance virtual services on live interfaces until SIGINT or SIGTERM."""
    logging.basicConfig(
        level=log_level.upper(), format="pylvs: %(levelname)s: %(message)s", stream=sys.stderr
    )
    commands = commands_of(**stated)
    if bool(interfaces) + bool(tap) + bool(tun) != 1:
        raise UsageError("name where to direct: --iface NAME (again for more), --tap or --tun")
    if len(set(interfaces)) < len(interfaces):
        raise UsageError("an interface is given twice")
    if tun and any(one.server and one.server.method == 3 for one in commands):
        raise UsageError("--tun has no link layer, so DR cannot work there: use --mode nat or tun")
    if len(interfaces) > PORTS_LIMIT:
        raise UsageError(f"{len(interfaces)} interfaces are too many: {PORTS_LIMIT} at most")
    tunnels = any(one.server and one.server.method == METHODS["tun"] for one in commands)
    if (tap or tun) and tunnels and not dip:
        raise UsageError("tunnels need a source address where there is no host: give --dip IP")
    address, prefix = _parse_dip(dip)
    from pylvs.control.daemon import Daemon, Options
    from pylvs.engine.warm import warm

    while_compiling(lambda: warm(rings=bool(interfaces)), "rings" if interfaces else "core")
    options = Options(
        interfaces=list(interfaces),
        tap=tap or "",
        tun=tun or "",
        commands=commands,
        connections=connections,
        settings=parse_settings(settings),
        marks=[rule for text in marks for rule in parse_mark(text)],
        dip=address,
        prefix=prefix,
        gateway=parse_address(gateway) if gateway else 0,
        stats_interval=stats_interval or 0.0,
        trace=trace or "",
        control=control or "",
    )
    signal.signal(signal.SIGTERM, _stop_early)
    with Daemon(options) as daemon:
        _print_plan(daemon)
        daemon.run(
            on_ready=lambda: print("pylvs: ready", file=sys.stderr, flush=True),
            on_stats=lambda: _print_stats(daemon),
        )
        _print_stats(daemon)
        for reason, count in daemon.reasons().items():
            print(f"{reason:<18} {count}")


def _stop_early(number: int, _: object) -> None:
    """Leave by way of every clean-up when told to stop before the director is ready."""
    sys.exit(0)


def _parse_dip(text: str | None) -> tuple[int, int]:
    if not text:
        return 0, 24
    host, slash, length = text.partition("/")
    if slash and not (length.isascii() and length.isdigit() and int(length) <= 32):
        raise UsageError(f"--dip {text}: give IP or IP/LEN")
    return parse_address(host), int(length) if slash else 24


def _print_plan(daemon: "Daemon") -> None:
    """Say what the director will do: each service, each real server, the way to it."""
    from rich.console import Console
    from rich.table import Table

    table = Table(box=None, pad_edge=False, header_style="bold")
    for title in ("Virtual service", "Scheduler", "Real server", "Forward", "Weight", "Via", "MAC"):
        table.add_column(title)
    shown = None
    for plan in daemon.plan():
        first = plan.service.key != shown
        shown = plan.service.key
        table.add_row(
            str(plan.service.key) if first else "",
            plan.service.terms.scheduler if first else "",
            plan.name,
            METHOD_NAMES[plan.method],
            str(plan.weight),
            plan.interface or "no route",
            plan.mac or "not resolved yet",
        )
    for service in daemon.manager.table.services.values():
        if not service.servers:
            table.add_row(str(service.key), service.terms.scheduler, "none yet", "", "", "", "")
    Console(width=120, soft_wrap=True).print(table)
    sys.stdout.flush()


def _print_stats(daemon: "Daemon") -> None:
    print(render.stats(daemon.listing()), end="", flush=True)
