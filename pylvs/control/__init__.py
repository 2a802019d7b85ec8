"""Desired state, and everything that speaks to the host.

    ipvsadm, config, api -> changes -> manager -> the engine's mailbox
                               |          |
                            keeper      model
                               |
                            network: nftables, netlink, one director a namespace

``daemon`` puts it together; ``listing`` and ``estimator`` read the director's tables.
"""

from collections.abc import Callable
from typing import Any

Call = Callable[[Callable[[], Any]], Any]
"""Runs a function between two breaths, and returns its result: ``Engine.call``."""


def at_once(function: Callable[[], Any]) -> Any:
    """Run a function where no engine breathes."""
    return function()
