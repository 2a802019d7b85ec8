"""What a host needs to be a real server, as shell lines: shown by --dry-run, run otherwise.

| | VIP | sysctls | also |
| --- | --- | --- | --- |
| dr | on lo | arp_ignore 1, arp_announce 2 | the gateway is the router, never the director |
| tun | on tunl0 | the same, rp_filter 0 | decapsulation: the kernel's ipip, or pylvs's own |
| nat | none | none | the gateway is the director |

``arp_ignore`` keeps the server from answering ARP for the VIP, ``arp_announce`` from naming it in
its own requests.
"""

import json
import pathlib
import shutil
import subprocess
import sys
from typing import Final

from pylvs.control.network.instance import state_directory
from pylvs.errors import HostError
from pylvs.wire.text import address_text

TUNNEL_DEVICE: Final = "tunl0"
_DEFAULT_ROUTE: Final = "default route"  # in the record, beside the settings' names
_QUIET_ARP: Final = {
    "net/ipv4/conf/all/arp_ignore": "1",
    "net/ipv4/conf/all/arp_announce": "2",
}
_NO_PATH_CHECK: Final = {
    "net/ipv4/conf/all/rp_filter": "0",
    "net/ipv4/conf/default/rp_filter": "0",
}


def _settings(mode: str) -> dict[str, str]:
    if mode == "nat":
        return {}
    return _QUIET_ARP | (_NO_PATH_CHECK if mode == "tun" else {})


def kernel_has_ipip() -> bool:
    """Whether the kernel decapsulates IPIP itself; its module is loaded if there is one."""
    modprobe = shutil.which("modprobe") or shutil.which("modprobe", path="/usr/sbin:/sbin")
    if modprobe:
        subprocess.run([modprobe, "-q", "ipip"], capture_output=True, check=False)
    return pathlib.Path("/sys/module/ipip").exists()


def setup_lines(vips: list[int], mode: str, gateway: int = 0) -> list[str]:
    """Return the shell lines that make this host a real server."""
    lines = [f"echo {value} > /proc/sys/{name}" for name, value in _settings(mode).items()]
    device = "lo"
    if mode == "tun":
        device = TUNNEL_DEVICE
        if kernel_has_ipip():
            lines.append(f"ip link set {device} up")
        else:
            program = f"{sys.executable} -m pylvs.lab.decapsulator {device}"
            lines.append(f"setsid {program} </dev/null >/dev/null 2>&1 &")
            wait = f"ip link show {device} up | grep -q {device}"
            lines.append(f"for i in $(seq 200); do {wait} && break; sleep 0.05; done; {wait}")
        lines.append(f"echo 0 > /proc/sys/net/ipv4/conf/{device}/rp_filter")
    if mode != "nat":
        lines += [f"ip address add {address_text(vip)}/32 dev {device}" for vip in vips]
    if gateway:
        lines.append(f"ip route replace default via {address_text(gateway)}")
    return lines


def undo_lines(vips: list[int], mode: str, before: dict[str, str]) -> list[str]:
    """Return the shell lines that undo it; ``before`` is what ``recall`` returned."""
    lines = []
    if mode != "nat":
        device = TUNNEL_DEVICE if mode == "tun" else "lo"
        lines += [f"ip address del {address_text(vip)}/32 dev {device}" for vip in vips]
    if mode == "tun":
        if kernel_has_ipip():
            lines.append(f"ip link set {TUNNEL_DEVICE} down")
        else:
            lines.append(f"ip link del {TUNNEL_DEVICE}")  # which ends the decapsulator
    lines += [
        f"echo {before.get(name, '0')} > /proc/sys/{name}" for name in reversed(_settings(mode))
    ]
    if _DEFAULT_ROUTE in before:
        route = before[_DEFAULT_ROUTE]
        lines.append(f"ip route replace {route}" if route else "ip route del default")
    return lines


def _record_path() -> pathlib.Path:
    return state_directory() / "realserver.json"


def remember(mode: str, gateway: int) -> None:
    """Write down what a set-up is about to change, but for what an earlier one wrote down."""
    before = {name: _read(name) for name in _settings(mode)}
    if gateway:
        before[_DEFAULT_ROUTE] = _default_route()
    before |= recall()
    _record_path().write_text(json.dumps(before), encoding="ascii")


def _default_route() -> str:
    """Return the default route that a new one without a metric replaces, or an empty text."""
    command = ["ip", "-4", "route", "show", "default"]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    routes = [line.removesuffix(" linkdown").strip() for line in done.stdout.splitlines()]
    return next((route for route in routes if " metric " not in route), "")


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
