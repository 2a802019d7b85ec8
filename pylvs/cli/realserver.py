"""``pylvs realserver``: prepare a host to be a real server, and undo it."""

import click

from pylvs.cli.services import parse_address
from pylvs.control import realserver
from pylvs.control.model import DSCP_MAX, METHODS
from pylvs.errors import UsageError

_MODE = click.option("--mode", type=click.Choice(list(METHODS)), default="dr", show_default=True)
_VIPS = click.option(
    "--vip", "vips", multiple=True, required=True, metavar="IP", help="Again for more."
)
_DRY = click.option("--dry-run", is_flag=True, help="Print the shell lines, and change nothing.")


@click.group()
def command() -> None:
    """Prepare this host to be a real server of a director.

    \b
    pylvs realserver setup --vip 192.168.0.211 --mode dr --dry-run
    """


@command.command()
@_VIPS
@_MODE
@click.option(
    "--gateway", metavar="IP", help="New default gateway: the director's address, for NAT."
)
@click.option(
    "--dscp", type=click.IntRange(1, DSCP_MAX), metavar="N", help="The director's, for l3dsr."
)
@_DRY
def setup(
    vips: tuple[str, ...], mode: str, gateway: str | None, dscp: int | None, dry_run: bool
) -> None:
    """Take the VIP without answering ARP for it; undo what the director does to reach it."""
    addresses = [parse_address(vip) for vip in vips]
    if (mode == "l3dsr") != bool(dscp) or (dscp and len(addresses) > 1):
        raise UsageError("--mode l3dsr and --dscp N go together, with one --vip")
    router = parse_address(gateway) if gateway else 0
    lines = realserver.setup_lines(addresses, mode, router, dscp or 0)
    if dry_run:
        click.echo("\n".join(lines))
        return
    realserver.remember(addresses, mode, router)
    realserver.run_lines(lines)
    if mode == "fullnat":
        click.echo("nothing to set up for full NAT")
    if mode == "nat" and not gateway:
        click.echo("nothing to set up for NAT but the default gateway: give --gateway DIP")


@command.command()
@_VIPS
@_MODE
@_DRY
def undo(vips: tuple[str, ...], mode: str, dry_run: bool) -> None:
    """Give the VIP up, and put settings and default gateway back."""
    addresses = [parse_address(vip) for vip in vips]
    lines = realserver.undo_lines(addresses, mode, realserver.recall())
    if dry_run:
        click.echo("\n".join(lines))
        return
    realserver.run_lines(lines)
    realserver.forget()
