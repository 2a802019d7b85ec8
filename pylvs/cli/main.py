"""``pylvs``: the commands, each loaded when it is called."""

import importlib
import sys
from typing import Any, Final

import click

from pylvs import __version__
from pylvs.errors import PylvsError, UsageError

_COMMANDS: Final = {
    "run": ("run:command", "Balance virtual services on live interfaces."),
    "replay": ("replay:command", "Run a capture through the director, without root."),
    "ipvsadm": ("ipvsadm:command", "ipvsadm's commands, to the director that runs here."),
    "restore": ("changes:restore", "Make the running director's table what a file states."),
    "config": ("config:command", "Check, show, compare and convert configuration files."),
    "reload": ("changes:reload", "Have the director read its configuration file again."),
    "drain": ("drain:command", "Send a server nothing new, and wait until it has nothing left."),
    "service": ("inspect:service", "Virtual services with their servers and counters."),
    "connection": ("inspect:connection", "Connections: all, or those of a client or server."),
    "stats": ("inspect:stats", "All traffic together, and what became of each frame."),
    "settings": ("inspect:settings", "The settings, and how to change them."),
    "lab": ("lab:command", "Build a network of namespaces to try the director in."),
    "realserver": ("realserver:command", "Prepare this host to be a real server."),
    "reasons": ("inspect:reasons", "List every reason a frame can get, and what it means."),
}


class _Commands(click.Group):
    """A group that knows its commands' names and help without importing them."""

    def list_commands(self, context: click.Context) -> list[str]:
        return list(_COMMANDS)

    def get_command(self, context: click.Context, name: str) -> click.Command | None:
        if name not in _COMMANDS:
            return None
        module, _, function = _COMMANDS[name][0].partition(":")
        command: click.Command = getattr(importlib.import_module(f"pylvs.cli.{module}"), function)
        return command

    def format_commands(self, context: click.Context, formatter: click.HelpFormatter) -> None:
        with formatter.section("Commands"):
            formatter.write_dl([(name, text) for name, (_, text) in _COMMANDS.items()])


@click.group(cls=_Commands, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(__version__, prog_name="pylvs")
def cli() -> None:
    """A Linux Virtual Server in userspace: a layer-4 director in Python.

    \b
    pylvs run --iface eth0 --vip 192.168.0.211:80 --rs 192.168.0.5 --mode dr
    pylvs lab demo nat
    """


def main(arguments: list[str] | None = None) -> Any:
    """Run the command line; exit 2 for usage, 1 for failure, one sentence on standard error."""
    try:
        return cli.main(args=arguments, prog_name="pylvs")
    except UsageError as error:
        for line in str(error).splitlines():
            print(f"pylvs: {line}", file=sys.stderr)
        sys.exit(2)
    except PylvsError as error:
        print(f"pylvs: {error}", file=sys.stderr)
        sys.exit(1)
