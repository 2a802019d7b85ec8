"""``pylvs ipvsadm``: every word after it is ipvsadm's."""

import sys

import click

from pylvs.control import client


@click.command(
    add_help_option=False,
    context_settings={"ignore_unknown_options": True, "allow_interspersed_args": False},
)
@click.argument("words", nargs=-1, type=click.UNPROCESSED)
def command(words: tuple[str, ...]) -> None:
    """ipvsadm's commands, to the director of this network namespace."""
    sys.exit(client.main(list(words)))
