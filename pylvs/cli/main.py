"""``pylvs``: the commands, each loaded when it is called."""

import importlib
import sys
from typing import Any, Final

import click

from pylvs import __version__
from pylvs.errors import PylvsError, UsageError

_COMMANDS: Final = {
    "run": ("pylvs.cli.run", "Balance virtual services on live interfaces."),
    "replay": ("pylvs.cli.replay", "Run a capture through the director, without root."),
    "ipvsadm": ("pylvs.cli.ipvsadm", "ipvsadm's commands, to the director that runs here."),
    "lab": ("pylvs.cli.lab", "Build a network of namespaces to try the director in."),
    "realserver": ("pylvs.cli.realserver", "Prepare this host to be a real server."),
    "reasons": ("pylvs.cli.reasons", "List every reason a frame can get, and what it means."),
}


class _Commands(click.Group):
    """A group that knows its commands' names and help without importing them."""

    def list_commands(self, context: click.Context) -> list[str]:
        return list(_COMMANDS)

    def get_command(self, context: click.Context, name: str) -> click.Command | None:
        if name not in _COMMANDS:
            return None
        command: click.Command = importlib.import_module(_COMMANDS[name][0]).command
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
