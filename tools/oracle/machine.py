"""The guest running: frames in and out by its two cards, commands by a virtio port.

    port c  eth0 02:00:00:00:01:fe 192.0.2.254/24     this process is the router 192.0.2.1
    port s  eth1 02:00:00:00:02:fe 10.0.0.254/24      and every real server 10.0.0.n

The same world as ``tools/guest.py``.  After each frame an ARP request goes in by both cards; when
both answers are out, so is all that the frame has caused.
"""

import base64
import contextlib
import pathlib
import select
import socket
import struct
import subprocess
import tempfile
import time
from types import TracebackType
from typing import Final

from tests.packets import arp, packed
from tools.guest import ADDRESSES, ADDRESSES_6, MACS, ROUTER, ROUTER_6, VIP_6, VIPS
from tools.oracle.image import KERNEL, RAMDISK, OracleError, build

_PORTS: Final = "cs"
_BOOT_S: Final = 120
_ANSWER_S: Final = 30
_SERVERS: Final = range(11, 41)
_SERVER_SIDE: Final = ("10.0.0.1", 0x02_00_00_00_02_01)
_PEERS: Final = (ROUTER, _SERVER_SIDE)
_CLIENT_SIDE: Final = ("192", "2001:db8:1:")
_IGMP: Final = 2
_DISCOVERY: Final = {*range(133, 138), 143}  # neighbours and multicast groups: not of interest
_MEMORY_MB: Final = 384

_SET_UP: Final = """
ip link set lo up
sysctl -qw net.ipv6.conf.all.forwarding=1 net.ipv6.conf.default.accept_dad=0
sysctl -qw net.ipv6.icmp.ratelimit=0 net.ipv6.neigh.default.base_reachable_time_ms=3600000
for i in eth0 eth1; do
  sysctl -qw net.ipv6.conf.$i.accept_dad=0 net.ipv6.conf.$i.router_solicitations=0
  ethtool -K $i gro off gso off tso off tx off rx off >/dev/null 2>&1
  ip link set $i up
done
ip addr add {0}/24 dev eth0; ip addr add {1}/24 dev eth1
ip link add dummy0 type dummy; ip link set dummy0 up
ip addr add {2}/32 dev dummy0; ip addr add {3}/32 dev dummy0
ip route add default via 192.0.2.1
ip addr add {4}/64 dev eth0 nodad; ip addr add {5}/64 dev eth1 nodad
ip addr add {6}/128 dev dummy0 nodad
ip route add default via {7}
sysctl -qw net.ipv4.ip_forward=1 net.ipv4.icmp_ratelimit=0 net.ipv4.icmp_msgs_per_sec=100000
sysctl -qw net.ipv4.icmp_msgs_burst=100000 net.ipv4.neigh.default.base_reachable_time_ms=3600000
for i in all default eth0 eth1; do
  sysctl -qw net.ipv4.conf.$i.rp_filter=0 net.ipv4.conf.$i.send_redirects=0
done
"""
_RESET: Final = """
ipvsadm -C
for i in 1 2 3; do
  for m in $(grep -o '^ip_vs_[a-z_]*' /proc/modules); do rmmod $m; done
  rmmod ip_vs && break; sleep 0.3
done
iptables -t mangle -F PREROUTING; ip6tables -t mangle -F PREROUTING
ip rule | grep -q fwmark && ip rule del fwmark 5 table 100; ip route flush table 100
ip route flush cache
ip link set eth0 mtu 1500; ip link set eth1 mtu 1500
sysctl -qw net.ipv4.ip_forward=1 net.ipv4.ipfrag_time=30
grep -c '^ip_vs ' /proc/modules; modprobe ip_vs; grep -c '^ip_vs ' /proc/modules
"""


def _mac(number: int) -> bytes:
    return number.to_bytes(6, "big")


def _is_discovery(frame: bytes) -> bool:
    """Whether a frame is about IPv6 neighbours or multicast groups, or no packet at all."""
    if frame[12:14] == b"\x08\x00":
        return frame[23] == _IGMP
    if frame[12:14] != b"\x86\xdd":
        return True
    kind, body = frame[20], 54
    if kind == 0 and frame[54] == 58:  # a report of groups has a router alert in front
        kind, body = 58, 62
    return kind == 58 and frame[body] in _DISCOVERY


class Machine:
    """The booted guest; a context manager that ends it."""

    def __init__(self) -> None:
        build()
        self._start()

    def _start(self) -> None:
        self._undo = contextlib.ExitStack()
        folder = pathlib.Path(self._undo.enter_context(tempfile.TemporaryDirectory()))
        self._marks = [0, 0]
        self._buffers = [b"", b""]
        self.sent: list[tuple[float, int, bytes]] = []
        """What came out: when (monotonic seconds), by which port, the frame."""
        try:
            self._boot(folder)
            self.run(_SET_UP.format(*ADDRESSES, *VIPS, *ADDRESSES_6, VIP_6, ROUTER_6))
            for address, number in self._neighbours():
                device = "eth0" if address.startswith(_CLIENT_SIDE) else "eth1"
                mac = _mac(number).hex(":")
                self.run(f"ip neigh replace {address} lladdr {mac} dev {device} nud permanent")
        except BaseException:
            self._undo.close()
            raise

    @staticmethod
    def _neighbours() -> list[tuple[str, int]]:
        servers = [(f"10.0.0.{n}", 0x02_00_00_00_02_00 | n) for n in _SERVERS]
        servers += [(f"2001:db8:2::{n:x}", 0x02_00_00_00_02_00 | n) for n in (1, *_SERVERS)]
        near = [(address, ROUTER[1]) for address in ("192.0.2.99", ROUTER_6, "2001:db8:1::99")]
        return [*_PEERS, *near, *servers]

    def _boot(self, folder: pathlib.Path) -> None:
        listeners = {name: self._listen(folder / name) for name in ("c", "s", "agent")}
        command = (
            "nice -n 10 qemu-system-x86_64 -accel tcg -cpu max -M q35 -smp 1 -display none "
            f"-m {_MEMORY_MB} -nodefaults -no-reboot -kernel {KERNEL} -initrd {RAMDISK} "
            f"-serial file:{folder}/console -device virtio-serial-pci "
            f"-chardev socket,id=c0,path={folder}/agent,server=off "
            "-device virtserialport,chardev=c0,name=agent"
        ).split()
        command += ["-append", "console=ttyS0 panic=-1 mitigations=off quiet net.ifnames=0"]
        for row, name in enumerate(_PORTS):
            command += [
                "-netdev",
                f"stream,id=n{name},server=off,addr.type=unix,addr.path={folder}/{name}",
                "-device",
                f"virtio-net-pci,netdev=n{name},mac={_mac(MACS[row]).hex(':')},romfile=",
            ]
        quiet = subprocess.DEVNULL
        process = subprocess.Popen(command, stdin=quiet, stdout=quiet, stderr=quiet)
        self._undo.callback(process.wait)
        self._undo.callback(process.terminate)
        self._wires = [self._accept(listeners[name]) for name in _PORTS]
        self._agent = self._accept(listeners["agent"])
        self._answers = b""
        self._read_line(_BOOT_S)

    def _listen(self, path: pathlib.Path) -> socket.socket:
        listener = self._undo.enter_context(socket.socket(socket.AF_UNIX))
        listener.bind(str(path))
        listener.listen(1)
        listener.settimeout(_ANSWER_S)
        return listener

    def _accept(self, listener: socket.socket) -> socket.socket:
        try:
            wire, _ = listener.accept()
        except TimeoutError:
            raise OracleError("QEMU did not start; run it by hand to see why") from None
        self._undo.callback(wire.close)
        wire.setblocking(False)
        return wire

    def __enter__(self) -> "Machine":
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, _: TracebackType | None
    ) -> None:
        self._undo.close()

    def reset(self) -> None:
        """Empty IPVS's tables by loading the module anew, and undo what scenarios change.

        A template of SIP's holds its module, and that IPVS's: then the guest is booted anew.
        """
        _, output, error = self.run(_RESET)
        if output.split()[-2:] == ["1", "1"]:
            self._undo.close()
            self._start()
        elif output.split()[-1:] != ["1"]:
            raise OracleError(f"the guest cannot be reset: {error}")
        self.settle(0)
        self.sent.clear()

    # Commands.

    def run(self, command: str) -> tuple[int, str, str]:
        """Run a command in the guest; return its status, output and errors."""
        self._agent.sendall(base64.b64encode(command.encode()) + b"\n")
        status, output, error = self._read_line(_ANSWER_S).split(" ")
        return int(status), *(base64.b64decode(text[1:]).decode() for text in (output, error))  # type: ignore[return-value]

    def _read_line(self, patience_s: float) -> str:
        end = time.monotonic() + patience_s
        while b"\n" not in self._answers:
            left = end - time.monotonic()
            ready, _, _ = select.select([self._agent, *self._wires], [], [], max(0.0, left))
            if not ready:
                raise OracleError("the guest does not answer")
            self._drain()
            if self._agent in ready:
                self._answers += self._agent.recv(1 << 16)
        line, _, self._answers = self._answers.partition(b"\n")
        return line.decode()

    # Frames.

    def send(self, port: int, frame: bytes) -> list[tuple[int, bytes]]:
        """Put a frame in; return what came out of it, as (port, frame)."""
        before = len(self.sent)
        self._put(port, frame)
        self.settle(port)
        return [(row, data) for _, row, data in self.sent[before:]]

    def settle(self, port: int) -> None:
        """Wait until everything has come out that earlier frames have caused."""
        for row in (port, 1 - port):
            address, mac = _PEERS[row]
            wanted = self._marks[row] + 1
            mark = arp(1, _mac(mac), address, bytes(6), ADDRESSES[row], _mac(MACS[row]))
            self._put(row, mark)
            end = time.monotonic() + _ANSWER_S
            while self._marks[row] < wanted:
                ready, _, _ = select.select(self._wires, [], [], end - time.monotonic())
                if not ready:
                    raise OracleError("the guest forwards nothing any more")
                self._drain()

    def wait(self, seconds: float) -> None:
        """Let time pass, and take what comes out meanwhile."""
        end = time.monotonic() + seconds
        while (left := end - time.monotonic()) > 0:
            select.select(self._wires, [], [], left)
            self._drain()

    def _put(self, port: int, frame: bytes) -> None:
        data = struct.pack("!I", len(frame)) + frame
        while data:
            try:
                data = data[self._wires[port].send(data) :]
            except BlockingIOError:
                select.select([], [self._wires[port]], [], 1)
                self._drain()

    def _drain(self) -> None:
        for row, wire in enumerate(self._wires):
            with contextlib.suppress(BlockingIOError):
                while data := wire.recv(1 << 18):
                    self._buffers[row] += data
            buffer = self._buffers[row]
            while len(buffer) >= 4 and len(buffer) >= 4 + struct.unpack("!I", buffer[:4])[0]:
                size = struct.unpack("!I", buffer[:4])[0]
                frame, buffer = buffer[4 : 4 + size], buffer[4 + size :]
                self._take(row, frame)
            self._buffers[row] = buffer

    def _take(self, port: int, frame: bytes) -> None:
        kind = frame[12:14]
        if kind == b"\x08\x06":
            self._take_arp(port, frame)
        elif (kind == b"\x08\x00" and frame[23] != 2) or (
            kind == b"\x86\xdd" and not _is_discovery(frame)
        ):  # not IGMP
            self.sent.append((time.monotonic(), port, frame))

    def _take_arp(self, port: int, frame: bytes) -> None:
        address, mac = _PEERS[port]
        if frame[20:22] == b"\0\x02" and frame[38:42] == packed(address):
            self._marks[port] += 1
        elif frame[20:22] == b"\0\x01":  # others' addresses: the router's MAC, a server's own
            target = socket.inet_ntoa(frame[38:42])
            owner = mac if port == 0 else 0x02_00_00_00_02_00 | frame[41]
            sender = socket.inet_ntoa(frame[28:32])
            self._put(port, arp(2, _mac(owner), target, frame[22:28], sender, frame[22:28]))
