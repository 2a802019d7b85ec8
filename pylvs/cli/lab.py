"""``pylvs lab``: a network of namespaces to try the director in."""

import json
import os
import pathlib
import subprocess
import sys
from typing import Any

import click

from pylvs.errors import HostError, UsageError

_RUN = pathlib.Path("/run/pylvs")
MODES = ("nat", "dr", "tun", "l3dsr", "fullnat")
_IPV6 = click.option("--ipv6", is_flag=True, help="IPv6 throughout.")
_MODE = click.argument("mode", type=click.Choice(MODES), default="nat")


@click.group()
def command() -> None:
    """Build a network of namespaces to try the director in: client, router, director, real servers.

    \b
    pylvs lab demo            every method, one after the other
    pylvs lab up dr           one that stays; then exec, status, down
    pylvs lab exec client curl -s http://192.168.0.211/
    pylvs lab up nat --ipv6   the same with IPv6
    """


@command.command()
@click.argument("modes", nargs=-1, type=click.Choice(MODES))
@_IPV6
def demo(modes: tuple[str, ...], ipv6: bool) -> None:
    """Send real HTTP through the director and show who answered, counters and a capture."""
    _enter_user_namespace()
    from pylvs.cli.progress import while_compiling
    from pylvs.engine.warm import warm
    from pylvs.lab.build import what_lacks
    from pylvs.lab.demo import demonstrate

    version = 6 if ipv6 else 4
    while_compiling(warm)
    for mode in modes or MODES:
        lacking = what_lacks(mode, version)
        if lacking and modes:
            raise HostError(lacking)
        if lacking:
            print(f"== {mode}: left out: {lacking}")
        else:
            demonstrate(mode, version)


def _enter_user_namespace() -> None:
    """Without root, start again inside a user namespace of our own, if the system allows it."""
    if os.geteuid() == 0:
        return
    words = ["unshare", "--user", "--map-root-user", "--net", "--mount"]
    probe = subprocess.run([*words, "true"], capture_output=True, text=True, check=False)
    if probe.returncode:
        raise HostError(
            "the lab needs root, or user namespaces, which this system refuses: "
            f"{probe.stderr.strip()}"
        )
    print("not root: the lab lives in a user namespace, and cannot be entered from outside")
    sys.stdout.flush()
    inside = 'mount -t tmpfs none /run && exec "$0" "$@"'
    again = [*words, "sh", "-c", inside, sys.executable, "-m", "pylvs", *sys.argv[1:]]
    os.execvp(again[0], again)


@command.command()
@_MODE
@_IPV6
def up(mode: str, ipv6: bool) -> None:
    """Build a lab and leave it, with web servers and the director running."""
    from pylvs.lab.build import Lab
    from pylvs.lab.topology import bracketed, topology

    lab = Lab(topology(mode, 6 if ipv6 else 4))
    try:
        lab.up()
        lab.start_servers()
        lab.start_director()
    except BaseException:
        lab.down()
        raise
    lab.keep()
    url = f"http://{bracketed(lab.topology.vip)}/"
    print(f"lab {lab.name} is up; try\n  pylvs lab exec client curl -sg {url}")


def _labs() -> dict[str, dict[str, Any]]:
    found = {}
    for path in sorted(_RUN.glob("lab-*/lab.json")):
        found[path.parent.name.removeprefix("lab-")] = json.loads(path.read_text(encoding="ascii"))
    return found


def _the_lab(name: str | None) -> tuple[str, dict[str, Any]]:
    labs = _labs()
    if name is None and len(labs) == 1:
        return next(iter(labs.items()))
    if name is None:
        known = ", ".join(labs) or "none"
        raise UsageError(f"which lab? --lab NAME; there are: {known} (pylvs lab up makes one)")
    if name not in labs:
        raise UsageError(f"no lab {name}; there are: {', '.join(labs) or 'none'}")
    return name, labs[name]


_LAB = click.option("--lab", "name", metavar="NAME", help="Which lab, if there are several.")


@command.command("exec", context_settings={"ignore_unknown_options": True})
@_LAB
@click.argument("node")
@click.argument("words", nargs=-1, required=True, type=click.UNPROCESSED)
def execute(name: str | None, node: str, words: tuple[str, ...]) -> None:
    """Run a command in a node: client, router, director, rs1, rs2."""
    name, record = _the_lab(name)
    space = f"{name}-{node}"
    if space not in record["namespaces"]:
        nodes = ", ".join(one.removeprefix(f"{name}-") for one in record["namespaces"])
        raise UsageError(f"no node {node}; there are: {nodes}")
    os.execvp("ip", ["ip", "netns", "exec", space, *words])


@command.command()
@click.option("--json", "as_json", is_flag=True)
def status(as_json: bool) -> None:
    """List the labs that are up."""
    labs = _labs()
    if as_json:
        print(json.dumps(labs, indent=2))
        return
    for name, record in labs.items():
        print(f"{name}: {record['mode']}, {', '.join(record['namespaces'])}")
    if not labs:
        print("no lab is up")


@command.command()
@_LAB
def down(name: str | None) -> None:
    """Stop a lab's processes and remove its namespaces."""
    from pylvs.lab.build import remove

    name, record = _the_lab(name)
    remove(_RUN / f"lab-{name}", record["namespaces"])
    print(f"lab {name} is down")
