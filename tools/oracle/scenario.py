"""Random scenarios: services, servers, frames, changes and time, and what the kernel did.

Everything follows from the seed but for what depends on the kernel's answers: a server replies to
what it was sent.
"""

import random
import time
from typing import Any, Final

from tests.packets import ethernet, sctp, tcp, udp
from tools.guest import MACS, ROUTER
from tools.oracle.machine import Machine
from tools.oracle.versions import Version4, Version6

Version = Version4 | Version6

_LETTERS: Final = {6: "-t", 17: "-u", 132: "--sctp-service"}
_SCHEDULERS: Final = [
    "rr",
    "wrr",
    "lc",
    "wlc",
    "sed",
    "nq",
    "sh",
    "mh",
    "dh",
    "fo",
    "ovf",
    "lblc",
    "lblcr",
    "sh",
    "mh",
]  # all but twos, which draws lots
_FLAGS: Final = (
    ["S"] * 8
    + ["SA", "A", "A", "A", "A", "PA", "PA", "FA", "FA", "R", "RA", "F", "SF", "SR"]
    + ["", "FPU"]
)
_CALLS: Final = (b"a@example.org", b"b@example.org", b"c", b"c2.%_~")
_ODD_CALLS: Final = (
    b"",
    b"@x",
    b"x@",
    b"x y",
    b"x;y",
    b"\xe9@\xd7",
    b"l" * 40,
    b"x@y@z",
)
_CHUNKS: Final = (0, 1, 1, 1, 2, 3, 6, 7, 8, 9, 10, 10, 11, 14, 5)
_SETTINGS: Final = {
    "sloppy_tcp": (0, 1),
    "sloppy_sctp": (0, 1),
    "nat_icmp_send": (0, 1),
    "expire_nodest_conn": (0, 1),
    "expire_quiescent_template": (0, 1),
    "conn_reuse_mode": (0, 1, 2, 3),
    "pmtu_disc": (1, 1, 0),
    "schedule_icmp": (0, 1),
    "secure_tcp": (0, 0, 3),
    "drop_packet": (0, 0, 0, 3),
    "cache_bypass": (0, 1),
}
_FINALS: Final = (
    "ipvsadm -Ln",
    "ipvsadm -Lnc",
    "ipvsadm -Sn",
    "ipvsadm -Ln --thresholds",
    "ipvsadm -Ln --persistent-conn",
    "ipvsadm -Ln --tun-info",
    "cat /proc/net/ip_vs",
    "cat /proc/net/ip_vs_conn",
    "ipvsadm -Ln --stats",
    "cat /proc/net/ip_vs_stats",
)
_FOLD_S: Final = 2.2
_FRAGMENT_S: Final = 1
_LISTING_EVERY: Final = 20


class Recorder:
    """A capture in the making: the format that ``tools/conformance.py`` reads."""

    def __init__(self, machine: Machine, name: str, commands: list[str], sysctls: dict[str, int]):
        self.machine = machine
        machine.reset()
        for key, value in sysctls.items():
            machine.run(f"sysctl -qw {key}={value}")
        self.vector: dict[str, Any] = {"name": name, "sysctls": sysctls, "events": [], "final": {}}
        self.vector["command_results"] = [self._run(command) for command in commands]
        machine.settle(0)
        machine.sent.clear()
        self._begin = time.monotonic()

    def _run(self, command: str) -> dict[str, Any]:
        status, output, error = self.machine.run(command)
        return {"cmd": command, "rc": status, "stdout": output, "stderr": error}

    def _now(self, moment: float | None = None) -> float:
        return round((moment or time.monotonic()) - self._begin, 4)

    def command(self, command: str) -> None:
        at = self._now()
        self._flush()
        self.vector["events"].append({"t": at, "dir": "cmd", **self._run(command)})

    def send(self, port: int, frame: bytes, note: str = "") -> list[tuple[int, bytes]]:
        """Put a frame in; return what came out."""
        self._flush()
        event = {"t": self._now(), "dir": "in", "port": "cs"[port], "hex": frame.hex()}
        if note:
            event["note"] = note
        self.vector["events"].append(event)
        answer = self.machine.send(port, frame)
        self._flush()
        return answer

    def _flush(self) -> None:
        for moment, port, frame in self.machine.sent:
            event = {"t": self._now(moment), "dir": "out", "port": "cs"[port], "hex": frame.hex()}
            self.vector["events"].append(event)
        self.machine.sent.clear()

    def wait(self, seconds: float) -> None:
        self.machine.wait(seconds)
        self._flush()

    def finish(self) -> dict[str, Any]:
        self.wait(_FRAGMENT_S + 0.5)
        self.vector["duration_s"] = self._now()
        self.vector["late_events_from"] = len(self.vector["events"])
        for command in _FINALS:
            if "stats" in command and "ipvsadm -Ln --stats" not in self.vector["final"]:
                self.machine.wait(_FOLD_S)
            self.vector["final"][command] = self._run(command)["stdout"]
        self._flush()
        return self.vector


class Service:
    """One virtual service of a scenario, by what its packets look like."""

    def __init__(self, rng: random.Random, version: Version, mark: int = 0) -> None:
        self.version = version
        self.mark = mark
        self.protocol = 6 if mark else rng.choice((6, 6, 6, 17, 17, 132))
        self.vip = rng.choice((version.vips[0], version.vips[0], version.vips[1]))
        self.port = rng.choice((80, 53, 8080))
        self.method = rng.choice(("-m", "-m", "-g", "-i"))
        self.servers = rng.sample(range(11, 19), rng.randint(1, 4))
        self.server_port = rng.choice((self.port, 9000)) if self.method == "-m" else self.port
        self.speaks_sip = self.protocol == 17 and rng.random() < 0.3
        self.tunnel = ""
        if self.method == "-i":
            kinds = ("", "", " --tun-type gue --tun-port 6080", " --tun-type gre")
            self.tunnel = rng.choice(kinds)
            if self.tunnel and rng.random() < 0.5:
                self.tunnel += " --tun-csum"

    @property
    def name(self) -> str:
        if self.mark:
            return f"-f {self.mark}" + (" -6" if self.version.number == 6 else "")
        return f"{_LETTERS[self.protocol]} {self.version.endpoint(self.vip, self.port)}"

    def server(self, n: int) -> str:
        address = self.version.director if n == 0 else self.version.server(n)
        port = 0 if self.mark else self.server_port
        return f"{self.name} -r {self.version.endpoint(address, port)}"

    def terms(self, rng: random.Random) -> str:
        scheduler = rng.choice(_SCHEDULERS)
        text = f"{self.name} -s {scheduler}"
        if scheduler in ("sh", "mh"):
            text += rng.choice(("", f" -b {scheduler}-port", f" -b {scheduler}-fallback"))
        if self.speaks_sip:
            text += rng.choice(("", " -p 100", f" -p 60{self.version.masks}")) + " --pe sip"
        else:
            text += rng.choice(("", "", "", " -p 100", f" -p 60{self.version.masks}"))
        if self.protocol == 17 and rng.random() < 0.2:
            text += " -o"
        return text

    def added(self, rng: random.Random, n: int) -> str:
        weight = rng.choice((1, 1, 2, 3, 5, 0))
        limits = ""
        if rng.random() < 0.25:
            upper = rng.randint(2, 9)
            limits = f" -x {upper} -y {rng.randint(0, upper)}"
        return f"ipvsadm -a {self.server(n)} {self.method}{self.tunnel} -w {weight}{limits}"


class Scenario:
    """A random scenario of ``steps`` steps."""

    def __init__(self, machine: Machine, seed: int, steps: int, version: Version) -> None:
        self.rng = random.Random(seed)
        self.steps = steps
        self.version = version
        rng = self.rng
        services = [Service(rng, version) for _ in range(rng.randint(1, 3))]
        self.services = list({one.name: one for one in services}.values())
        commands = []
        if rng.random() < 0.25:
            marked = Service(rng, version, mark=5)
            self.services.append(marked)
            match = f"-d {marked.vip} -p tcp -m multiport --dports {marked.port},443"
            tables = "iptables" if version.number == 4 else "ip6tables"
            commands.append(f"{tables} -t mangle -A PREROUTING {match} -j MARK --set-mark 5")
        for service in self.services:
            commands.append(f"ipvsadm -A {service.terms(rng)}")
            if rng.random() < 0.1:
                service.servers.append(0)  # the director itself
            commands += [service.added(rng, n) for n in service.servers]
        chosen = rng.sample(sorted(_SETTINGS), rng.randint(0, 4))
        settings = {f"net.ipv4.vs.{name}": rng.choice(_SETTINGS[name]) for name in chosen}
        settings["net.ipv4.ipfrag_time"] = _FRAGMENT_S  # over before the next scenario begins
        self.recorder = Recorder(
            machine,
            f"random{version.number if version.number == 6 else ''}_{seed}",
            commands,
            settings,
        )
        self.flows: dict[tuple[Any, ...], int] = {}

    def run(self) -> dict[str, Any]:
        acts = (
            (self._client, 50),
            (self._server, 22),
            (self._client_error, 5),
            (self._server_error, 5),
            (self._tunnel_error, 3),
            (self._client_fragments, 4),
            (self._server_fragments, 2),
            (self._server_starts, 4),
            (self._stranger, 4),
            (self._change, 5),
        )
        for step in range(self.steps):
            (act,) = self.rng.choices([one for one, _ in acts], [weight for _, weight in acts])
            act()
            if step % _LISTING_EVERY == _LISTING_EVERY - 1:
                self.recorder.command("cat /proc/net/ip_vs_conn")
        return self.recorder.finish()

    # Packets.

    def _message(self) -> bytes:
        """Return a SIP message, or what is nearly one."""
        rng = self.rng
        end = rng.choice((b"\r\n", b"\r\n", b"\r\n", b"\n", b"\r"))
        lines = [b"INVITE sip:a@example.org SIP/2.0", b"Via: SIP/2.0/UDP example.org"]
        for _ in range(rng.choice((1, 1, 1, 1, 2, 3, 0))):
            name = rng.choice((b"Call-ID",) * 5 + (b"CALL-id", b"i", b"I", b"ip", b"Call-IDs"))
            colon = rng.choice((b": ",) * 6 + (b":", b" :\t ", b":" + end + b" ", b"", b":" + end))
            value = rng.choice(_CALLS) if rng.random() < 0.8 else rng.choice(_ODD_CALLS)
            lines.insert(rng.randint(0, len(lines)), name + colon + value)
        message = end.join([*lines, b"", rng.choice((b"", b"body" + end + b"Call-ID: d" + end))])
        return message if rng.random() < 0.95 else message[: rng.randint(0, len(message))]

    def _payload(self) -> bytes:
        return self.rng.randbytes(self.rng.choice((0, 0, 0, 5, 100, 700, 1_432, 1_440, 1_460)))

    def _segment(
        self,
        protocol: int,
        source: Any,
        destination: Any,
        reply: bool,
        payload: bytes | None = None,
    ) -> bytes:
        """Return a transport packet from one (address, port) to another."""
        rng = self.rng
        ends = source[0], destination[0], source[1], destination[1]
        if protocol == 6:
            flags = rng.choice(("SA", "A", "PA", "FA", "RA", "A") if reply else _FLAGS)
            body = tcp(*ends, flags, self._payload(), rng.randint(1, 1 << 31), rng.randint(0, 1))
        elif protocol == 17:
            payload = self._payload() if payload is None else payload
            body = udp(*ends, payload, checksum=rng.random() < 0.85)
        else:
            kinds = [rng.choice(_CHUNKS) for _ in range(rng.choice((1, 1, 2)))]
            body = sctp(
                ends[2], ends[3], *((kind, rng.randbytes(rng.randint(0, 9))) for kind in kinds)
            )
        if rng.random() < 0.03:
            at = rng.choice((16, 17) if protocol == 6 else (6, 7))
            body = body[:at] + bytes([body[at] ^ 0x55]) + body[at + 1 :]
        return body if rng.random() < 0.98 else body[: rng.randint(0, len(body))]

    def _ends(self) -> tuple[Service, tuple[str, int], tuple[str, int]]:
        service = self.rng.choice(self.services)
        client = (self.rng.choice(self.version.clients), 40_000 + self.rng.randint(0, 7))
        port = self.rng.choice((service.port,) * 12 + (81, 443))
        return service, client, (service.vip, port)

    def _packet(
        self, source: str, destination: str, protocol: int, body: bytes, plain: bool = False
    ) -> bytes:
        return self.version.packet(self.rng, (source, destination), protocol, body, plain)

    def _to_client_side(self, packet: bytes) -> bytes:
        return ethernet(packet, MACS[0].to_bytes(6, "big"), ROUTER[1].to_bytes(6, "big"))

    def _to_server_side(self, packet: bytes, n: int) -> bytes:
        mac = (0x02_00_00_00_02_00 | n).to_bytes(6, "big")
        return ethernet(packet, MACS[1].to_bytes(6, "big"), mac)

    def _client(self) -> None:
        service, client, virtual = self._ends()
        message = self._message() if service.speaks_sip else None
        segment = self._segment(service.protocol, client, virtual, reply=False, payload=message)
        packet = self._packet(client[0], virtual[0], service.protocol, segment)
        self._note(service, client, virtual, self.recorder.send(0, self._to_client_side(packet)))

    def _note(self, service: Service, client: Any, virtual: Any, sent: Any) -> None:
        """Remember which server a flow went to."""
        for port, frame in sent:
            if port == 1:
                self.flows[service.protocol, client, virtual, service] = frame[5]

    def _flow(self) -> Any:
        if not self.flows:
            return None
        (protocol, client, virtual, service), n = self.rng.choice(list(self.flows.items()))
        masqueraded = service.method == "-m"
        port = virtual[1] if service.mark else service.server_port
        sender = (self.version.server(n), port) if masqueraded else virtual
        return protocol, client, virtual, sender, n, service

    def _server(self) -> None:
        flow = self._flow()
        if flow is None:
            return
        protocol, client, virtual, sender, n, _ = flow
        segment = self._segment(protocol, sender, client, reply=True)
        packet = self._packet(sender[0], client[0], protocol, segment)
        if (
            self.version.number == 6
            and sender == virtual
            and (packet[6] != protocol or packet[7] < 2 or len(packet) > 1_000)
        ):
            return  # should it not pass, Linux would tell itself, and IPVS take that to the server
        self.recorder.send(1, self._to_server_side(packet, n))

    def _server_starts(self) -> None:
        """A real server speaks first."""
        service, client, _ = self._ends()
        n = self.rng.choice(service.servers) or 11
        sender = self.version.server(n), service.server_port
        message = self._message() if service.protocol == 17 else None
        segment = self._segment(service.protocol, sender, client, reply=True, payload=message)
        packet = self._packet(sender[0], client[0], service.protocol, segment)
        self.recorder.send(1, self._to_server_side(packet, n), "a server speaks first")

    # ICMP errors: what is quoted went the other way.

    def _error(self, source: str, destination: str, quote: bytes) -> bytes:
        return self.version.error(self.rng, (source, destination), quote)

    def _client_error(self) -> None:
        flow = self._flow()
        if flow is None:
            return
        protocol, client, virtual, _, _, _ = flow
        segment = self._segment(protocol, virtual, client, True)
        quote = self._packet(virtual[0], client[0], protocol, segment)
        source = self.rng.choice((client[0], self.version.routers[0]))
        packet = self._error(source, virtual[0], quote)
        self.recorder.send(0, self._to_client_side(packet), "ICMP error from the client's side")

    def _server_error(self) -> None:
        flow = self._flow()
        if flow is None:
            return
        protocol, client, _, sender, n, _ = flow
        segment = self._segment(protocol, client, sender, False)
        quote = self._packet(client[0], sender[0], protocol, segment)
        source = self.rng.choice((self.version.server(n), self.version.routers[1]))
        packet = self._error(source, client[0], quote)
        self.recorder.send(1, self._to_server_side(packet, n), "ICMP error from the server's side")

    def _tunnel_error(self) -> None:
        flow = self._flow()
        if flow is None or flow[5].method != "-i":
            return
        protocol, client, virtual, _, n, service = flow
        segment = self._segment(protocol, client, virtual, False)
        inner = self._packet(client[0], virtual[0], protocol, segment)
        ends = self.version.director, self.version.server(n)
        outer = self.version.outer(ends, inner, service.tunnel)
        packet = self._error(self.version.routers[1], self.version.director, outer)
        self.recorder.send(1, self._to_server_side(packet, 1), "ICMP error about a tunnel")

    # Fragments.

    def _big(self, protocol: int, source: Any, destination: Any, reply: bool) -> bytes:
        body = self.rng.randbytes(self.rng.choice((40, 300, 2_000, 3_000)))
        if protocol == 17:
            return udp(source[0], destination[0], source[1], destination[1], body)
        if protocol == 6:
            flags = "PA" if reply else self.rng.choice(("S", "PA"))
            return tcp(source[0], destination[0], source[1], destination[1], flags, body)
        return sctp(source[1], destination[1], (1 if not reply else 0, body))

    def _client_fragments(self) -> None:
        service, client, virtual = self._ends()
        segment = self._big(service.protocol, client, virtual, reply=False)
        ends = client[0], virtual[0]
        for piece in self.version.fragments(self.rng, ends, service.protocol, segment):
            sent = self.recorder.send(0, self._to_client_side(piece))
            self._note(service, client, virtual, sent)

    def _server_fragments(self) -> None:
        flow = self._flow()
        if flow is None:
            return
        protocol, client, virtual, sender, n, _ = flow
        if self.version.number == 6 and sender == virtual:
            return
        segment = self._big(protocol, sender, client, reply=True)
        ends = sender[0], client[0]
        for piece in self.version.fragments(self.rng, ends, protocol, segment):
            self.recorder.send(1, self._to_server_side(piece, n))

    # Others.

    def _stranger(self) -> None:
        rng, version = self.rng, self.version
        client, vip = rng.choice(version.clients), version.vips[0]
        kind = rng.randrange(5)
        if kind == 0:
            ends = client, rng.choice(version.vips)
            body = version.echo(ends, rng.randint(0, 1 << 31), self._payload())
            packet = self._packet(*ends, version.icmp, body, plain=True)
        elif kind == 1:
            other = rng.choice((47, 50, 2, 4, 41) if version.number == 4 else (47, 59, 2, 99))
            packet = self._packet(client, vip, other, self._payload())
        elif kind == 2:
            segment = tcp(client, vip, 40_000, 81, rng.choice(_FLAGS), self._payload())
            packet = self._packet(client, vip, 6, segment, plain=True)
        elif kind == 3:
            body = udp(client, version.elsewhere, 5, 6, b"x")
            packet = self._packet(client, version.elsewhere, 17, body)
        else:
            n = rng.choice(range(11, 19))
            source = version.server(n)
            segment = tcp(
                source, client, rng.choice((80, 9_000)), 40_005, rng.choice(("SA", "RA", "A"))
            )
            packet = self._packet(source, client, 6, segment)
            self.recorder.send(1, self._to_server_side(packet, n), "no connection")
            return
        self.recorder.send(0, self._to_client_side(packet), "none of the services'")

    def _change(self) -> None:
        rng = self.rng
        service = rng.choice(self.services)
        n = rng.choice(service.servers)
        server, method = service.server(n), service.method + service.tunnel
        command = rng.choice(
            (
                f"ipvsadm -e {server} {method} -w {rng.randint(0, 6)}",
                f"ipvsadm -e {server} {method} -w 0",
                f"ipvsadm -e {server} {method} -w 1 -x {rng.randint(0, 5)}",
                f"ipvsadm -d {server}",
                service.added(rng, n),
                service.added(rng, n),
                f"ipvsadm -E {service.terms(rng)}",
                f"ipvsadm -D {service.name}",
                f"ipvsadm -A {service.terms(rng)}",
                f"ipvsadm --set {rng.choice((0, 700))} {rng.choice((0, 90))} 0",
                f"ip link set eth{rng.randint(0, 1)} mtu {rng.choice(self.version.mtus)}",
            )
        )
        self.recorder.command(command)
