"""pylvs: a Linux Virtual Server in userspace, in Python.

    ring / TAP / pcap -> driver -> direct( parse -> match -> schedule -> forward ) -> driver
                                     |         the engine's thread          |
                                   tables <- mailbox <- control (uvloop) <- cli
                                     |
    connections that last: drivers.programs, which the kernel runs, on a table of the director's

Layers, each importing only from those to its right:

    cli -> lab -> control -> engine -> host, schedulers, persistence, helpers, drivers
        -> forwarding -> tables -> wire -> frames -> jit

Start reading at ``engine/director.py``, the door, and follow one frame through the four stages.
The words are LVS's own: a director balances virtual services over real servers.
"""

from typing import TYPE_CHECKING, Any

__version__ = "0.1.0"

if TYPE_CHECKING:
    from pylvs.engine.director import Director
    from pylvs.plugins import Flow, Service
    from pylvs.schedulers.plugin import Server

_HOMES = {
    "Director": "pylvs.engine.director",
    "Flow": "pylvs.plugins",
    "Server": "pylvs.schedulers.plugin",
    "Service": "pylvs.plugins",
}

__all__ = ["Director", "Flow", "Server", "Service", "__version__"]


def __getattr__(name: str) -> Any:
    """Load public names when they are first used (PEP 562), so the command line starts fast."""
    if name not in _HOMES:
        raise AttributeError(f"module pylvs has no attribute {name!r}")
    import importlib

    return getattr(importlib.import_module(_HOMES[name]), name)
