"""``pylvs run``: a director in the foreground."""

import logging
import os
import signal
import sys
from typing import TYPE_CHECKING, Any, Literal

import click

from pylvs.cli.progress import while_compiling
from pylvs.cli.services import LOCAL, commands_of, parse_marks, parse_settings, service_options
from pylvs.control.ipvsadm import render
from pylvs.control.model import METHOD_NAMES
from pylvs.control.network import system
from pylvs.errors import UsageError

if TYPE_CHECKING:
    from pylvs.control.daemon import Daemon

_EPILOG = """\b
Examples
  pylvs run --iface eth0 --vip 192.168.0.211:80 --rs 192.168.0.5 \\
            --rs 192.168.0.8,weight=2 --mode dr --scheduler wrr
  pylvs run --iface eth0 --iface eth1 --vip 10.133.146.47:80 \\
            --rs 192.168.79.129:8080 --rs 192.168.79.131:8080 --mode nat
  pylvs run --iface eth0 --vip 10.0.0.53:53/udp --rs 10.0.0.5
  pylvs run --iface eth0 --vip 10.0.0.80:80 --rs 198.51.100.5 --mode l3dsr --dscp 10
  pylvs run --iface eth0 --vip 10.0.0.80:80 --rs 10.9.0.5:8080 --mode fullnat --local 10.0.0.81
  pylvs run --iface eth0 --vip 10.1.0.0/24:80,8000-8999 --rs 10.9.0.5 --rs 10.9.0.6 --mode nat
  pylvs run --iface eth0 --rules /etc/ipvsadm.rules
  ipvsadm -Sn | pylvs run --iface eth0 --rules -
  pylvs run --iface eth0 --vip 10.0.0.80:443 --rs 10.0.0.5 --rs 10.0.0.6 -s sh -b sh-port -p 300
  pylvs run --iface eth0 --rules web.rules --mark 5=tcp/10.0.0.80:80,443 --sysctl sloppy_tcp=1
  pylvs run -c /etc/pylvs/pylvs.toml           # `pylvs config --help` tells more

\b
Standard output: the plan, then the final counters.  Standard error: `pylvs: ready`, warnings.
Exit status: 0 stopped by SIGINT or SIGTERM, 1 failure, 2 usage.
"""


@click.command(epilog=_EPILOG)
@click.option(
    "--config",
    "-c",
    metavar="FILE",
    help="Everything from a file; the default, if there is one, is /etc/pylvs/pylvs.toml.",
)
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
    "dips",
    multiple=True,
    metavar="IP[/LEN]",
    help="The director's address: source of tunnels, and on a TAP device of ARP; again for IPv6.",
)
@click.option(
    "--gateway",
    "gateways",
    multiple=True,
    metavar="IP",
    help="Next hop for everybody else, on a TAP device; again for IPv6.",
)
@LOCAL
@click.option(
    "--driver",
    type=click.Choice(["auto", "packet", "xdp"]),
    default="auto",
    show_default=True,
    help="How frames are read from interfaces: packet rings, or XDP sockets for the services' "
    "TCP and UDP beside them.  XDP is faster for small packets and turns off what makes bulk "
    "traffic fast; auto is packet.",
)
@click.option(
    "--workers",
    type=click.IntRange(1, 64),
    metavar="N",
    help="Threads that move frames, each a share of the flows; 1 unless said.  Interfaces should "
    "have as many queues: ethtool -L NAME rx N tx N.",
)
@click.option(
    "--offload",
    type=click.Choice(["auto", "on", "off"]),
    default="auto",
    show_default=True,
    help="Whether the kernel forwards what follows in connections that last, by programs of BPF "
    "(Linux 6.6): NAT and direct routing, by packet rings.  auto does where bpf is allowed, but "
    "with --trace.",
)
@click.option(
    "--connections",
    type=click.IntRange(1, 1 << 24),
    metavar="N",
    help="Room in the connection table, 72 bytes each; 1048576 unless said.",
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
    config: str | None,
    interfaces: tuple[str, ...],
    tap: str | None,
    tun: str | None,
    dips: tuple[str, ...],
    gateways: tuple[str, ...],
    local: tuple[str, ...],
    driver: Literal["auto", "packet", "xdp"],
    workers: int | None,
    offload: Literal["auto", "on", "off"],
    connections: int | None,
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
    from pylvs.control.config import file, schema

    places = (interfaces, tap, tun, dips, gateways, local)
    named = any((*places, settings, marks, *stated.values()))
    named = named or (driver, offload) != ("auto", "auto")
    named = named or not (connections is None and workers is None)
    if config and named:
        raise UsageError("--config states everything: --iface, --vip and the like exclude it")
    if not config and not named and os.path.exists(file.DEFAULT_PATH):
        config = file.DEFAULT_PATH
    if config:
        what = file.read(config)
    else:
        device = (list(interfaces), tap or "", tun or "")
        ways = (",".join(dips), ",".join(gateways))
        room = connections or 1 << 20
        place = schema.Place(*device, *ways, list(local), driver, workers or 1, offload, room)
        what = file.of_options(
            place, commands_of(**stated), parse_settings(settings), parse_marks(marks)
        )
    if trace and what.place.offload == "on":
        raise UsageError("--trace writes what the director forwards: leave --offload out")
    if trace and what.place.workers > 1:
        raise UsageError("--trace writes what one worker sees: leave --workers out")
    os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")  # NumPy would start threads nobody needs
    from pylvs.control.daemon import Daemon, Options
    from pylvs.engine.warm import LIVE, TRACED, warm

    part = TRACED if trace else LIVE
    while_compiling(lambda: warm(part), part)
    where = control or what.place.control
    options = Options(what, config or "", stats_interval or 0.0, trace or "", where)
    signal.signal(signal.SIGTERM, _stop_early)
    with Daemon(options) as daemon:
        _print_plan(daemon)
        daemon.run(
            on_ready=_say_ready,
            on_stats=lambda: _print_stats(daemon),
        )
        system.notify("STOPPING=1")
        _print_stats(daemon)
        for reason, count in daemon.reasons().items():
            print(f"{reason:<18} {count}")


def _say_ready() -> None:
    print("pylvs: ready", file=sys.stderr, flush=True)
    system.notify("READY=1")


def _stop_early(number: int, _: object) -> None:
    """Leave by way of every clean-up when told to stop before the director is ready."""
    sys.exit(0)


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
    Console(width=120, soft_wrap=True, markup=False, emoji=False).print(table)
    print(daemon.way())
    sys.stdout.flush()


def _print_stats(daemon: "Daemon") -> None:
    print(render.stats(daemon.listing()), end="", flush=True)
