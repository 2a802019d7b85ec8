"""``pylvs config``: configuration files, without or with a running director."""

import json

import click

from pylvs.cli.changes import AS_JSON, CONTROL, print_changes, read_rules
from pylvs.control.client import speak
from pylvs.control.config import checking, file, schema, services
from pylvs.control.ipvsadm import render
from pylvs.control.ipvsadm.rules import parse_text
from pylvs.control.model import Table, Timeouts, difference

_EPILOG = f"""\b
A file
  {file.DEFAULT_PATH} unless named; all that can be said:

\b
  marks = ["5=tcp/192.0.2.10:80,443"]       # as pylvs run --mark
  [director]                                # where it runs: a change takes a restart
  interfaces = ["eth0", "eth1"]             # or tap = "tap0", or tun = "tun0"
  dip = "192.0.2.2/24"                      # source of tunnels; on a TAP device of ARP
  gateway = "192.0.2.1"
  connections = 1048576
  api = "127.0.0.1:8090"                    # HTTP for whoever has the token, 1024 or above
  token_file = "/etc/pylvs/token"           # openssl rand -hex 32, readable by root alone
  [timeouts]
  tcp = 900                                 # seconds, and tcp_fin, udp
  [settings]
  conn_reuse_mode = 1                       # as pylvs run --sysctl
  [[services]]
  service = "tcp:192.0.2.10:80"             # or udp:, sctp:, mark:5, mark6:5
  scheduler = "wrr"                         # and flags = ["sh-port"]
  persistent = 300                          # seconds, and netmask = "255.255.255.0",
                                            # engine = "sip" or "package.module:Class"
  one_packet = false
  [[services.servers]]
  server = "10.0.0.11:8080"                 # without a port: the service's
  method = "nat"                            # nat, dr, tun
  weight = 2                                # and thresholds: upper, lower
  tunnel = "gue"                            # ipip, gue, gre; tunnel_port = 6080,
                                            # tunnel_checksum = "none", "full", "remote"
"""
_FILE = click.argument("path", metavar="[FILE]", default=file.DEFAULT_PATH)


@click.group(epilog=_EPILOG)
def command() -> None:
    """Check, show, compare and convert configuration files."""


@command.command()
@_FILE
def check(path: str) -> None:
    """Name every fault of a file."""
    stated = file.read(path)
    servers = sum(len(service.servers) for service in stated.services.values())
    click.echo(f"{path}: {len(stated.services)} services, {servers} servers, no fault")


@command.command()
@AS_JSON
@CONTROL
def show(as_json: bool, control: str | None) -> None:
    """Print the running director's table as a file states it."""
    document = speak("GET", "/table", "", control)
    if as_json:
        click.echo(json.dumps(document))
        return
    config, _ = checking.convert(document, schema.Config)
    click.echo(file.text_of(config), nl=False)


@command.command()
@_FILE
@AS_JSON
@CONTROL
def diff(path: str, as_json: bool, control: str | None) -> None:
    """Print what a file would change in the running director."""
    stated = file.read(path)
    table = schema.Table(
        [services.document_of(one) for one in stated.services.values()],
        schema.Timeouts(*stated.timeouts),
    )
    answer = speak("PUT", "/table?dry_run=1", json.dumps(schema.plain(table)), control)
    print_changes(answer, as_json, "would be made")


@command.command()
@click.argument("path", metavar="FILE")
@click.option("--to", type=click.Choice(["toml", "ipvsadm"]), required=True)
def convert(path: str, to: str) -> None:
    """Print a configuration file as ipvsadm -S would, or what that printed as a file.

    What ipvsadm has no words for, where the director runs and settings, is left out.
    """
    text = read_rules(path)
    if to == "ipvsadm":
        commands = difference({}, file.read_text(text, path).services)
        click.echo("".join(f"{render.command(one)}\n" for one in commands), nl=False)
        return
    table = Table()
    for one in parse_text(text.splitlines(), path):
        table.apply(one)
    config = schema.Config([services.document_of(one) for one in table.services.values()])
    if table.timeouts != Timeouts():
        config.timeouts = schema.Timeouts(*table.timeouts)
    click.echo(file.text_of(config), nl=False)
