"""``pylvs reasons``: what each counter means, and what a well-run director shows."""

import click


@click.command()
def command() -> None:
    """List every reason a frame can get, its healthy value, and what it means."""
    from rich.console import Console
    from rich.table import Table

    from pylvs.frames import Reason

    table = Table(box=None, pad_edge=False, header_style="bold")
    for title in ("Reason", "Healthy", "Meaning"):
        table.add_column(title)
    for reason in Reason:
        table.add_row(reason.name.lower(), reason.healthy, reason.help)
    Console().print(table)
