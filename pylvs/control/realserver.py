"""What a host needs to be a real server, as shell lines: shown by --dry-run, run otherwise.

| | VIP | sysctls | also |
| --- | --- | --- | --- |
| dr | on lo | arp_ignore 1, arp_announce 2 | the gateway is the router, never the director |
| tun | on tunl0 | the same, rp_filter 0 | decapsulation: the kernel's ipip, or pylvs's own |
| nat | none | none | the gateway is the director |
| fullnat | none | none | nothing: the director speaks for itself |
| l3dsr | on lo | as for dr | nftables gives packets with the service's DSCP the VIP back |

``arp_ignore`` keeps the server from answering ARP for the VIP, ``arp_announce`` from naming it in
its own requests.  IPv6 takes neither: Linux answers a solicitation only where the address is.  Its
tunnels end at ip6tnl0, and the kernel needs ip6_tunnel.
"""

import json
import pathlib
import re
import shutil
import subprocess
import sys
from typing import Final

from pylvs.control.network.instance import state_directory
from pylvs.errors import HostError
from pylvs.wire.text import address_text, family_of, is_ipv6

_NO_VIP: Final = ("nat", "fullnat")  # the director changes the packets' destination
TUNNEL_DEVICES: Final = {4: "tunl0", 6: "ip6tnl0"}
_MODULES: Final = {4: "ipip", 6: "ip6_tunnel"}
_IPV6_METRIC: Final = " metric 1024 "  # what IPv6 routes have that were given none
_DEFAULT_ROUTES: Final = {4: "default route", 6: "IPv6 default route"}  # in the record
_QUIET_ARP: Final = {
    "net/ipv4/conf/all/arp_ignore": "1",
    "net/ipv4/conf/all/arp_announce": "2",
}
_NO_PATH_CHECK: Final = {
    "net/ipv4/conf/all/rp_filter": "0",
    "net/ipv4/conf/default/rp_filter": "0",
}


def _settings(vips: list[int], mode: str) -> dict[str, str]:
    if mode in _NO_VIP or all(map(is_ipv6, vips)):
        return {}
    return _QUIET_ARP | (_NO_PATH_CHECK if mode == "tun" else {})


def kernel_decapsulates(family: int) -> bool:
    """Whether the kernel ends tunnels itself; its module is loaded if there is one."""
    module = _MODULES[family]
    modprobe = shutil.which("modprobe") or shutil.which("modprobe", path="/usr/sbin:/sbin")
    if modprobe:
        subprocess.run([modprobe, "-q", module], capture_output=True, check=False)
    return pathlib.Path("/sys/module", module).exists()


def setup_lines(
    vips: list[int], mode: str, gateway: int = 0, dscp: int = 0, *, early: bool = False
) -> list[str]:
    """Return the shell lines that make this host a real server; ``dscp`` is l3dsr's mark.

    ``early``: tunnels may end before the host's packet filter (``lab.early_end``).
    """
    settings = _settings(vips, mode)
    lines = [f"echo {value} > /proc/sys/{name}" for name, value in settings.items()]
    families = sorted(set(map(family_of, vips)))
    if mode == "tun":
        for family in families:
            lines += _tunnel_lines(family, early)
    if mode not in _NO_VIP:
        lines += [f"ip address add {_place_of(vip, mode)}" for vip in vips]
    if mode == "l3dsr":
        lines += [line for vip in vips for line in _readdressing(vip, dscp)]
    if gateway:
        text, option = address_text(gateway), "-6 " if is_ipv6(gateway) else ""
        lines.append(f"ip {option}route replace default via {text}")
    return lines


def _readdressing(vip: int, dscp: int) -> list[str]:
    """Return the lines that have packets to this host with a mark addressed to the VIP again."""
    table = _table_of(vip)
    family = table.partition(" ")[0]
    marked = f"fib daddr type local {family} dscp {dscp}"
    return [
        f"nft add table {table}",
        f"nft 'add chain {table} prerouting {{ type filter hook prerouting priority raw; }}'",
        f"nft flush chain {table} prerouting",
        f"nft add rule {table} prerouting {marked} {family} daddr set {address_text(vip)}",
    ]


def _table_of(vip: int) -> str:
    """Return the name of the nftables table that is a VIP's."""
    return f"{'ip6' if is_ipv6(vip) else 'ip'} pylvs_l3dsr_{vip:x}"


def _tunnel_lines(family: int, early: bool) -> list[str]:
    """Return the lines that make the far end of tunnels that carry a family's packets."""
    device = TUNNEL_DEVICES[family]
    if kernel_decapsulates(family):
        lines = [f"ip link set {device} up"]
    else:
        program = f"{sys.executable} -m pylvs.lab.decapsulator {device} {family}"
        program += " early" if early else ""
        wait = f"ip link show {device} up | grep -q {device}"
        lines = [
            f"setsid {program} </dev/null >/dev/null 2>&1 &",
            f"for i in $(seq 200); do {wait} && break; sleep 0.05; done; {wait}",
        ]
    if family == 4:
        lines.append(f"echo 0 > /proc/sys/net/ipv4/conf/{device}/rp_filter")
    return lines


def _place_of(vip: int, mode: str) -> str:
    """Return what ``ip address add`` and ``del`` are told of a VIP."""
    device = TUNNEL_DEVICES[family_of(vip)] if mode == "tun" else "lo"
    text = address_text(vip)
    return f"{text}/128 dev {device} nodad" if is_ipv6(vip) else f"{text}/32 dev {device}"


def undo_lines(vips: list[int], mode: str, before: dict[str, str]) -> list[str]:
    """Return the shell lines that undo it; ``before`` is what ``recall`` returned."""
    lines = []
    if mode not in _NO_VIP:
        lines += [f"ip address del {_place_of(vip, mode)}".removesuffix(" nodad") for vip in vips]
    if mode == "l3dsr":
        lines += [f"nft delete table {_table_of(vip)}" for vip in vips]
    if mode == "tun":
        for family in sorted(set(map(family_of, vips))):
            device = TUNNEL_DEVICES[family]
            if kernel_decapsulates(family):
                lines.append(f"ip link set {device} down")
            else:
                lines.append(f"ip link del {device}")  # which ends the decapsulator
    lines += [
        f"echo {before.get(name, '0')} > /proc/sys/{name}"
        for name in reversed(_settings(vips, mode))
    ]
    for family, name in _DEFAULT_ROUTES.items():
        if name in before:
            words = before[name]
            what = f"replace {words}" if words else "del default"
            lines.append(f"ip -{family} route {what}")
    return lines


def _record_path() -> pathlib.Path:
    return state_directory() / "realserver.json"


def remember(vips: list[int], mode: str, gateway: int) -> None:
    """Write down what a set-up is about to change, but for what an earlier one wrote down."""
    before = {name: _read(name) for name in _settings(vips, mode)}
    if gateway:
        family = family_of(gateway)
        before[_DEFAULT_ROUTES[family]] = _default_route(family)
    before |= recall()
    _record_path().write_text(json.dumps(before), encoding="ascii")


def _default_route(family: int) -> str:
    """Return the default route that a new one without a metric replaces, or an empty text."""
    command = ["ip", f"-{family}", "route", "show", "default"]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    # What ip shows and does not take: the state of a link, and when a router's route expires.
    shown = re.compile(r" (linkdown|expires \S+)")
    routes = [shown.sub("", line).strip() for line in done.stdout.splitlines()]
    plain = (route for route in routes if " metric " not in route or _IPV6_METRIC in route)
    return next(plain, "")


def recall() -> dict[str, str]:
    path = _record_path()
    if not path.exists():
        return {}
    before: dict[str, str] = json.loads(path.read_text(encoding="ascii"))
    return before


def forget() -> None:
    _record_path().unlink(missing_ok=True)


def _read(name: str) -> str:
    return pathlib.Path("/proc/sys", name).read_text(encoding="ascii").strip()


def run_lines(lines: list[str]) -> None:
    """Run shell lines one by one; raises HostError with the first that fails."""
    for line in lines:
        done = subprocess.run(["sh", "-c", line], capture_output=True, text=True, check=False)
        if done.returncode:
            raise HostError(f"`{line}` failed: {done.stderr.strip() or done.returncode}")
