"""The director's settings, under the kernel's own names (Documentation/networking/ipvs-sysctl.rst).

net.ipv4.vs.conn_reuse_mode=1        a short name, without net.ipv4.vs., is enough
"""

from typing import Any, Final

from pylvs.errors import UsageError

_BOOL: Final = (0, 1)
_MODE: Final = (0, 3)
_ANY: Final = (0, 2**31 - 1)

SETTINGS: Final = {
    "net.ipv4.ip_forward": _BOOL,
    "net.ipv6.conf.all.forwarding": _BOOL,
    "net.ipv4.ipfrag_time": (0, 86_400),
    "net.ipv4.ip_unprivileged_port_start": (0, 65_535),
    "net.ipv4.vs.am_droprate": _ANY,
    "net.ipv4.vs.amemthresh": _ANY,
    "net.ipv4.vs.cache_bypass": _BOOL,
    "net.ipv4.vs.conn_reuse_mode": (0, 3),
    "net.ipv4.vs.drop_entry": _MODE,
    "net.ipv4.vs.drop_packet": _MODE,
    "net.ipv4.vs.expire_nodest_conn": _BOOL,
    "net.ipv4.vs.expire_quiescent_template": _BOOL,
    "net.ipv4.vs.ignore_tunneled": _BOOL,
    "net.ipv4.vs.lblc_expiration": _ANY,
    "net.ipv4.vs.lblcr_expiration": _ANY,
    "net.ipv4.vs.nat_icmp_send": _BOOL,
    "net.ipv4.vs.pmtu_disc": _BOOL,
    "net.ipv4.vs.run_estimation": _BOOL,
    "net.ipv4.vs.schedule_icmp": _BOOL,
    "net.ipv4.vs.secure_tcp": _MODE,
    "net.ipv4.vs.sloppy_sctp": _BOOL,
    "net.ipv4.vs.sloppy_tcp": _BOOL,
    "net.ipv4.vs.snat_reroute": _BOOL,
    "ftp_helper": _BOOL,  # no name of the kernel's: there it is a module, loaded or not
}
"""Name: the least and the greatest value."""

_IPVS: Final = "net.ipv4.vs."
_ABSENT: Final = {
    "backup_only": "there is no synchronisation daemon yet",
    "conntrack": "there is no netfilter around the director's connections",
    "debug_level": "see `pylvs run --trace`",
    "sync_": "there is no synchronisation daemon yet",
}
"""Names, or how they begin, of the kernel's settings that have nothing to act on: why."""
_AUTOMATIC_IDLE, _AUTOMATIC, _ALWAYS = 1, 2, 3


def full_name(name: str) -> str:
    """Return a setting's full name; raises UsageError with what there is."""
    dotted = name.replace("/", ".")
    for candidate in (dotted, _IPVS + dotted):
        if candidate in SETTINGS:
            return candidate
    for absent, why in _ABSENT.items():
        if dotted.removeprefix(_IPVS).startswith(absent):
            raise UsageError(f"setting {name} has nothing to act on: {why}")
    known = ", ".join(one.removeprefix(_IPVS) for one in SETTINGS)
    raise UsageError(f"setting {name} is unknown; there are {known}")


def check(name: str, value: int) -> None:
    """Raise UsageError unless the setting takes this value."""
    low, high = SETTINGS[full_name(name)]
    if not low <= value <= high:
        raise UsageError(f"setting {name} is {low} to {high}, not {value}")


def faults_of(values: dict[str, Any]) -> dict[str, str]:
    """Return what is wrong with which of some settings."""
    faults = {}
    for name, value in values.items():
        try:
            if isinstance(value, bool) or not isinstance(value, int):
                raise UsageError(f"give a number, not {value!r}")
            if abs(value) > _ANY[1]:
                raise UsageError(f"the greatest number is {_ANY[1]}")
            check(name, value)
        except UsageError as error:
            faults[name] = str(error)
    return faults


def apply(director: Any, name: str, value: int) -> None:
    """Give a setting its value; ``director`` is the DIRECTOR record."""
    check(name, value)
    director[full_name(name).rpartition(".")[2]] = value
    defend(director)


def read(director: Any, name: str) -> int:
    return int(director[full_name(name).rpartition(".")[2]])


def defend(director: Any, free_pages: int | None = None) -> None:
    """Let the defences act as their modes and the free memory ask for.

    Modes 1 and 2 are one: the director itself goes from one to the other as memory runs short of
    ``amemthresh`` pages.  Called when a setting changes, and once a second with the free pages.
    """
    threshold = int(director["amemthresh"])
    if free_pages is not None:
        short = free_pages < threshold
        for name in ("drop_entry", "drop_packet", "secure_tcp"):
            if director[name] in (_AUTOMATIC_IDLE, _AUTOMATIC):
                director[name] = _AUTOMATIC if short else _AUTOMATIC_IDLE
    director["drop_rate"] = 0
    if director["drop_packet"] == _ALWAYS:
        director["drop_rate"] = director["am_droprate"]
    elif director["drop_packet"] == _AUTOMATIC and free_pages is not None:
        director["drop_rate"] = max(1, threshold // max(1, threshold - free_pages))
    director["guarded"] = director["secure_tcp"] >= _AUTOMATIC
    if director["drop_entry"] >= _AUTOMATIC:
        director["chores_ms"] = 0
