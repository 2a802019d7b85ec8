"""The manual page, from what the commands say of themselves: ``python -m tools.manual``."""

import inspect
import re

import click

from pylvs import __version__
from pylvs.cli.main import cli

_FILES = (
    ("/etc/pylvs/pylvs.toml", "The configuration; `pylvs config --help` shows all of it."),
    ("/run/pylvs/INODE/control", "Where commands reach the director of a network namespace."),
)


def _escaped(text: str) -> str:
    text = text.replace("\\", "\\e").replace("-", "\\-")
    return re.sub(r"^(?=[.'])", "\\\\&", text, flags=re.M)


def _paragraphs(text: str) -> list[str]:
    """Return roff for help text: a paragraph is filled unless it begins with click's mark."""
    lines = []
    for part in inspect.cleandoc(text).split("\n\n"):
        if part.startswith("\b"):
            lines += [".PP", ".nf", _escaped(part.removeprefix("\b").strip("\n")), ".fi"]
        else:
            lines += [".PP", _escaped(part)]
    return lines


def _options(command: click.Command) -> list[str]:
    context = click.Context(command, info_name="")
    lines = []
    for option in command.get_params(context):
        record = option.get_help_record(context)
        if record:
            lines += [".TP", f"\\fB{_escaped(record[0])}\\fR", _escaped(record[1] or "")]
    return lines


def _described(path: str, command: click.Command) -> list[str]:
    usage = " ".join(command.collect_usage_pieces(click.Context(command)))
    lines = [f'.SS "{path} {_escaped(usage)}"', *_paragraphs(command.help or "")]
    lines += _options(command) + _paragraphs(command.epilog or "")
    if isinstance(command, click.Group):
        context = click.Context(command)
        for name in command.list_commands(context):
            inner = command.get_command(context, name)
            assert inner is not None
            lines += _described(f"{path} {name}", inner)
    return lines


def main() -> None:
    context = click.Context(cli)
    lines = [f'.TH PYLVS 8 "" "pylvs {__version__}"', ".SH NAME", "pylvs \\- a layer\\-4 director"]
    lines += [".SH SYNOPSIS", ".B pylvs", "COMMAND [OPTIONS]", ".SH DESCRIPTION"]
    lines += [*_paragraphs(cli.help or ""), ".SH COMMANDS"]
    for name in cli.list_commands(context):
        command = cli.get_command(context, name)
        assert command is not None
        lines += _described(f"pylvs {name}", command)
    lines.append(".SH FILES")
    for path, text in _FILES:
        lines += [".TP", f"\\fI{_escaped(path)}\\fR", _escaped(text)]
    lines += [".SH SEE ALSO", ".BR ip (8),", ".BR nft (8)"]
    print("\n".join(line for line in lines if line))


if __name__ == "__main__":
    main()
