"""``pylvs restore`` and ``pylvs reload``: whole tables, as differences."""

import json
import sys
from typing import Any
from urllib.parse import quote

import click

from pylvs.control.client import speak
from pylvs.errors import UsageError

_EPILOG = """\b
Examples
  ipvsadm -Sn > rules; edit rules; pylvs restore rules --dry-run; pylvs restore rules
  pylvs restore - < rules

\b
Exit status: 0 done, 1 no director or it cannot, 2 the file is refused: then nothing has changed.
"""

CONTROL = click.option("--control", metavar="PATH", help="Which director, if not this namespace's.")
AS_JSON = click.option("--json", "as_json", is_flag=True, help="Print JSON.")


def place_of(service: str) -> str:
    """Return where a service is spoken of."""
    return f"/services/{quote(service, safe=':', errors='surrogateescape')}"


def read_rules(path: str) -> str:
    """Return the text of a file, or of standard input for ``-``; raises UsageError."""
    if path == "-":
        return sys.stdin.read()
    try:
        with open(path, encoding="utf-8") as file:
            return file.read()
    except (OSError, UnicodeDecodeError) as error:
        reason = error.strerror if isinstance(error, OSError) else "it is not text"
        raise UsageError(f"{path}: {reason}") from None


def print_changes(answer: Any, as_json: bool, done: str) -> None:
    """Print the command lines that a change took, or would."""
    if as_json:
        click.echo(json.dumps(answer))
        return
    click.echo("".join(f"{line}\n" for line in answer["changes"]), nl=False)
    count = len(answer["changes"])
    click.echo(f"{count} change{'' if count == 1 else 's'} {done}", err=True)


@click.command(epilog=_EPILOG)
@click.argument("rules", metavar="FILE")
@click.option("--dry-run", is_flag=True, help="Print what would change, and change nothing.")
@AS_JSON
@CONTROL
def restore(rules: str, dry_run: bool, as_json: bool, control: str | None) -> None:
    """Make the running director's table what FILE states, as ipvsadm -S prints it.

    Only what differs is touched, so connections stay; all of it is done or nothing.
    """
    body = json.dumps({"rules": read_rules(rules)})
    answer = speak("PUT", f"/table?dry_run={int(dry_run)}", body, control)
    print_changes(answer, as_json, "would be made" if dry_run else "made")


@click.command()
@AS_JSON
@CONTROL
def reload(as_json: bool, control: str | None) -> None:
    """Have the director follow its configuration file; a fault in it leaves all as it is.

    SIGHUP does the same, and tells in the log.
    """
    print_changes(speak("POST", "/reload", "", control), as_json, "made")
