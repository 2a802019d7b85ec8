"""``pylvs replay``: a capture through the director."""

import contextlib
import os
import sys
import tempfile
from typing import Any

import click

from pylvs.cli.progress import while_compiling
from pylvs.cli.services import LOCAL, commands_of, parse_address, service_options
from pylvs.control.ipvsadm import render
from pylvs.errors import HostError, UsageError
from pylvs.wire.text import mac_of

_EPILOG = """\b
Examples
  pylvs replay in.pcap --rules rules.txt -o out.pcap
  pylvs replay in.pcap --vip 192.0.2.10:80 --rs 10.0.0.11:8080 --mode nat \\
               --host 192.0.2.254/24=02:00:00:00:01:fe --host 10.0.0.254/24=02:00:00:00:02:fe \\
               -o out.pcap
"""


@click.command(epilog=_EPILOG)
@click.argument("capture", metavar="IN.pcap")
@click.option(
    "-o", "--output", required=True, metavar="OUT.pcap", help="Frames that the director sends."
)
@service_options
@LOCAL
@click.option(
    "--neighbour",
    "neighbours",
    multiple=True,
    metavar="IP=MAC",
    help="A next hop's MAC; else the capture's, else 02:00 and the address.",
)
@click.option(
    "--host",
    "hosts",
    multiple=True,
    metavar="ADDR/LEN=MAC",
    help="An interface of the director; again for more.",
)
@click.option("--mtu", type=click.IntRange(68, 65_535), default=1_500, show_default=True)
def command(
    capture: str,
    output: str,
    local: tuple[str, ...],
    neighbours: tuple[str, ...],
    hosts: tuple[str, ...],
    mtu: int,
    **stated: Any,
) -> None:
    """Run a capture through the director: without root, in the capture's time, repeatably."""
    commands = commands_of(**stated)
    macs = dict(_parse_neighbour(text) for text in neighbours)
    parsed = [_parse_host(text) for text in hosts]
    from pylvs.control.replay import Host, Replay
    from pylvs.drivers.pcap import Writer
    from pylvs.engine.warm import CORE, warm

    while_compiling(lambda: warm(CORE), CORE)
    pool = list(map(parse_address, local))
    replay = Replay(capture, commands, [Host(*host) for host in parsed], macs, mtu, pool)
    with (
        _replacing(output) as file,
        click.progressbar(
            length=len(replay.frames), label="replaying", file=sys.stderr, update_min_steps=1_000
        ) as bar,
    ):
        written = replay.run(Writer(file), lambda _: bar.update(1))
    print(render.stats(replay.listing()), end="")
    for reason, count in replay.reasons().items():
        print(f"{reason:<18} {count}")
    print(f"{len(replay.frames)} frames in, {written} out, in {output}")


@contextlib.contextmanager
def _replacing(path: str) -> Any:
    """Open a file beside ``path`` and put it in its place only once it is whole."""
    folder = os.path.dirname(path) or "."
    try:
        handle, temporary = tempfile.mkstemp(dir=folder, suffix=".part")
    except OSError as error:
        raise HostError(f"cannot write {path}: {error.strerror}") from None
    try:
        with os.fdopen(handle, "wb") as file:
            yield file
        os.chmod(temporary, 0o644)
        os.replace(temporary, path)
    except BaseException:
        os.unlink(temporary)
        raise


def _parse_neighbour(text: str) -> tuple[int, int]:
    address, _, mac = text.partition("=")
    try:
        return parse_address(address), mac_of(mac)
    except ValueError as error:
        raise UsageError(f"--neighbour {text}: {error}; give IP=MAC") from None


def _parse_host(text: str) -> tuple[int, int, int]:
    network, _, mac = text.partition("=")
    address, slash, length = network.partition("/")
    bits = 128 if ":" in address else 32
    if not slash or not (length.isascii() and length.isdigit()) or int(length) > bits:
        raise UsageError(f"--host {text}: give ADDR/LEN=MAC")
    try:
        return parse_address(address), int(length), mac_of(mac)
    except ValueError as error:
        raise UsageError(f"--host {text}: {error}; give ADDR/LEN=MAC") from None
