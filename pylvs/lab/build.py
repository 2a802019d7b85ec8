"""A lab built and taken down again: namespaces, bridges, veth pairs, and the processes in them.

Every namespace carries the lab's own name in front, and only those are ever removed.
"""

import contextlib
import json
import os
import pathlib
import secrets
import shutil
import signal
import subprocess
import sys
import time
from typing import Final

from pylvs.control import realserver
from pylvs.errors import HostError
from pylvs.lab.topology import DSCP, Topology
from pylvs.lab.webserver import has_ipv6
from pylvs.wire.text import address_of

READY_TIMEOUT_S: Final = 180.0
_STOP_TIMEOUT_S: Final = 10.0


def require_tools() -> None:
    """Raise HostError unless namespaces can be made here."""
    if shutil.which("ip") is None:
        raise HostError("the lab needs the ip program: apt-get install iproute2")
    if os.geteuid() != 0:
        raise HostError(
            "the lab needs root, or a user namespace of its own: unshare --user --map-root-user "
            "--net --mount sh -c 'mount -t tmpfs none /run && pylvs lab demo'"
        )


def what_lacks(mode: str, version: int = 4) -> str:
    """Return what keeps a lab of this mode from being built here, or nothing."""
    if mode == "l3dsr":
        return "" if shutil.which("nft") else "its real servers need nft: apt-get install nftables"
    if mode != "tun" or realserver.kernel_decapsulates(version):
        return ""
    if os.access("/dev/net/tun", os.R_OK | os.W_OK):
        return ""
    return (
        "its real servers must decapsulate: the kernel has no ipip, and /dev/net/tun may not be "
        "opened here; run the lab as root"
    )


def ip(*words: str, check: bool = True) -> str:
    """Run the ip program; raises HostError with what it said."""
    done = subprocess.run(["ip", *words], capture_output=True, text=True, check=False)
    if check and done.returncode:
        raise HostError(f"ip {' '.join(words)}: {done.stderr.strip()}")
    return done.stdout


class Lab:
    """One lab.  Use it as a context manager, or ``up`` and ``down``."""

    def __init__(self, topology: Topology, name: str = "", queues: int = 1) -> None:
        self.topology = topology
        self._queues = ["numrxqueues", str(queues), "numtxqueues", str(queues)]
        self.name = name or f"lvs-{secrets.token_hex(2)}"
        self.namespaces: list[str] = []
        self.processes: list[subprocess.Popen[str]] = []
        self.director: subprocess.Popen[str] | None = None
        self.folder = pathlib.Path(f"/run/pylvs/lab-{self.name}")

    def __enter__(self) -> "Lab":
        try:
            self.up()
        except BaseException:
            self.down()
            raise
        return self

    def __exit__(self, *_: object) -> None:
        self.down()

    def namespace(self, node: str) -> str:
        return f"{self.name}-{node}"

    def up(self) -> None:
        """Build the network and prepare the real servers; nothing runs in it yet."""
        require_tools()
        self.folder.mkdir(parents=True, exist_ok=True)
        for node in self.topology.nodes:
            self._add_namespace(node.name)
        if self.topology.wired:
            self._wire()
        else:
            self._switch()
        for node in self.topology.nodes:
            if node.gateway:
                space = self.namespace(node.name)
                ip("-n", space, "route", "replace", "default", "via", node.gateway)
            forwards = "1" if node.forwards else "0"
            if has_ipv6():
                self.shell(node.name, f"echo {forwards} > /proc/sys/net/ipv6/conf/all/forwarding")
            self.shell(node.name, f"echo {forwards} > /proc/sys/net/ipv4/ip_forward")
            self.shell(node.name, "echo 0 > /proc/sys/net/ipv4/conf/all/rp_filter")
            self.shell(node.name, "echo 0 > /proc/sys/net/ipv4/conf/all/send_redirects")
        for server in self.topology.servers:
            vips = [address_of(self.topology.vip)]
            lines = realserver.setup_lines(vips, self.topology.mode, dscp=DSCP, early=True)
            for line in lines:
                self.shell(server, line)

    def _add_namespace(self, node: str) -> None:
        space = self.namespace(node)
        ip("netns", "add", space)
        self.namespaces.append(space)
        # Nobody looks for duplicates, or waits until it is sure that there are none.
        for which in ("all", "default") if has_ipv6() else ():
            self.shell(node, f"echo 0 > /proc/sys/net/ipv6/conf/{which}/accept_dad")
        ip("-n", space, "link", "set", "lo", "up")

    def _wire(self) -> None:
        for (node, one), (other, far) in self.topology.wires:
            space, far_space = self.namespace(node.name), self.namespace(other.name)
            self._add_pair(space, one.name, far_space, far.name)
            self._set_up(node.name, one.name, one.address)
            self._set_up(other.name, far.name, far.address)

    def _add_pair(self, space: str, name: str, far_space: str, far: str) -> None:
        near = [name, *self._queues, "type", "veth"]
        peer = ["peer", "name", far, *self._queues, "netns", far_space]
        ip("-n", space, "link", "add", *near, *peer)

    def _set_up(self, node: str, interface: str, address: str) -> None:
        space = self.namespace(node)
        ip("-n", space, "address", "add", address, "dev", interface)
        ip("-n", space, "link", "set", interface, "up")

    def _switch(self) -> None:
        """Plug every interface into the bridge of its LAN, in a namespace of their own."""
        self._add_namespace("switch")
        # A switch does not read IP; unless told so, the bridge drops malformed packets itself.
        for family in ("iptables", "arptables"):
            setting = f"/proc/sys/net/bridge/bridge-nf-call-{family}"
            self.shell("switch", f"[ ! -e {setting} ] || echo 0 > {setting}")
        switch = self.namespace("switch")
        for lan in self.topology.lans:
            ip("-n", switch, "link", "add", lan, "type", "bridge")
            ip("-n", switch, "link", "set", lan, "up")
        for node in self.topology.nodes:
            for one in node.interfaces:
                self._plug(node.name, one.name, one.lan, one.address)

    def _plug(self, node: str, interface: str, lan: str, address: str) -> None:
        switch, far = self.namespace("switch"), f"{node}.{interface}"
        self._add_pair(self.namespace(node), interface, switch, far)
        ip("-n", switch, "link", "set", far, "master", lan, "up")
        self._set_up(node, interface, address)

    def shell(self, node: str, line: str) -> str:
        """Run one shell line in a node; raises HostError with what it said."""
        words = ["ip", "netns", "exec", self.namespace(node), "sh", "-c", line]
        with open(self.folder / "shell.err", "w+", encoding="utf-8") as errors:
            done = subprocess.run(
                words, stdout=subprocess.PIPE, stderr=errors, text=True, check=False, timeout=120
            )
            errors.seek(0)
            said = errors.read()
        if done.returncode:
            raise HostError(f"in {node}: `{line}` failed: {said.strip() or done.returncode}")
        return done.stdout

    def spawn(self, node: str, words: list[str], log: str) -> subprocess.Popen[str]:
        """Start a process in a node, its output in the lab's folder."""
        command = ["ip", "netns", "exec", self.namespace(node), *words]
        with open(self.folder / log, "w", encoding="utf-8") as file:
            process = subprocess.Popen(
                command, stdout=file, stderr=subprocess.STDOUT, text=True, start_new_session=True
            )
        self.processes.append(process)
        return process

    def log(self, name: str) -> str:
        return (self.folder / name).read_text(encoding="utf-8", errors="replace")

    def start_director(self, arguments: list[str] | None = None) -> None:
        """Start ``pylvs run`` in the director and wait for its ``pylvs: ready``."""
        words = [sys.executable, "-m", "pylvs", "run"]
        words += self.topology.director_arguments() if arguments is None else arguments
        self.director = self.spawn("director", words, "director.log")
        end = time.monotonic() + READY_TIMEOUT_S
        while "pylvs: ready" not in self.log("director.log"):
            if self.director.poll() is not None:
                raise HostError(f"the director did not start:\n{self.log('director.log')}")
            if time.monotonic() > end:
                raise HostError(f"the director was not ready in {READY_TIMEOUT_S:.0f} s")
            time.sleep(0.02)

    def await_text(self, log: str, text: str) -> None:
        """Wait until a process has written a text; raises HostError if it does not."""
        end = time.monotonic() + _STOP_TIMEOUT_S
        while text not in self.log(log):
            if time.monotonic() > end:
                raise HostError(f"{log} does not say {text!r}:\n{self.log(log)}")
            time.sleep(0.02)

    def stop_director(self) -> str:
        """Stop the director and return what it printed."""
        assert self.director is not None
        self.director.send_signal(signal.SIGTERM)
        status = self.director.wait(_STOP_TIMEOUT_S)
        text = self.log("director.log")
        if status:
            raise HostError(f"the director ended with status {status}:\n{text}")
        return text

    def start_servers(self) -> None:
        """Start a web server in each real server that names itself in every answer."""
        for node, address in self.topology.servers.items():
            port = self.topology.server_port
            if nginx := shutil.which("nginx"):
                words = [nginx, "-e", "stderr", "-c", str(self._write_nginx(node, port))]
            else:
                words = [sys.executable, "-m", "pylvs.lab.webserver", node, str(port)]
            self.spawn(node, words, f"{node}.log")
            self._await_port(node, address, port)

    def _write_nginx(self, node: str, port: int) -> pathlib.Path:
        path = self.folder / f"{node}.conf"
        files = self.folder / node
        files.mkdir(exist_ok=True)
        ipv6 = f" listen [::]:{port};" if has_ipv6() else ""
        path.write_text(
            f"user root root; daemon off; master_process off; pid {files}/pid; error_log stderr;\n"
            "events { worker_connections 4096; }\n"
            "http { access_log off; keepalive_requests 1000000;\n"
            f"  client_body_temp_path {files}; proxy_temp_path {files};\n"
            f"  fastcgi_temp_path {files};\n"
            f"  uwsgi_temp_path {files}; scgi_temp_path {files};\n"
            f"  server {{ listen {port};{ipv6} root {files};\n"
            f'    location = / {{ default_type text/plain; return 200 "{node}\\n"; }} }} }}\n',
            encoding="ascii",
        )
        os.chmod(self.folder, 0o755)
        return path

    def _await_port(self, node: str, address: str, port: int) -> None:
        probe = (
            "import socket,sys,time\n"
            "for _ in range(200):\n"
            f"    s=socket.socket(socket.AF_INET{'6' if ':' in address else ''})\n"
            f"    r=s.connect_ex(('{address}',{port})); s.close()\n"
            "    if r==0: sys.exit(0)\n"
            "    time.sleep(0.05)\n"
            "sys.exit('no server listens')\n"
        )
        self.shell(node, f'exec {sys.executable} -c "{probe}"')

    def fetch(self, count: int = 1, path: str = "/") -> list[str]:
        """Return the answers to ``count`` HTTP requests of the client, each on a new connection."""
        url = f"http://{self.topology.endpoint}{path}"
        if shutil.which("curl"):
            line = f"for i in $(seq {count}); do curl -sSg --max-time 5 {url} || exit 1; done"
        else:
            line = (
                f"for i in $(seq {count}); do {sys.executable} -c 'import urllib.request as u;"
                f'print(u.urlopen("{url}", timeout=5).read().decode(), end="")\' || exit 1; done'
            )
        return self.shell("client", line).split()

    def down(self) -> None:
        """End the processes and remove the namespaces and the folder."""
        for process in reversed(self.processes):
            if process.poll() is None:
                with contextlib.suppress(ProcessLookupError):
                    os.killpg(process.pid, signal.SIGTERM)
        for process in self.processes:
            try:
                process.wait(_STOP_TIMEOUT_S)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()
        remove(self.folder, self.namespaces)
        self.processes.clear()
        self.namespaces.clear()

    def keep(self) -> None:
        """Write down what ``remove`` needs, for a lab that outlives its maker."""
        record = {"mode": self.topology.mode, "namespaces": self.namespaces}
        (self.folder / "lab.json").write_text(json.dumps(record), encoding="ascii")


def remove(folder: pathlib.Path, namespaces: list[str]) -> None:
    """End every process in the namespaces, then remove them and the lab's folder."""
    for space in namespaces:
        _end_processes(space)
        ip("netns", "del", space, check=False)
    shutil.rmtree(folder, ignore_errors=True)


def _end_processes(space: str) -> None:
    """Ask a namespace's processes to end, and wait until they have."""
    end = time.monotonic() + _STOP_TIMEOUT_S
    number = signal.SIGTERM
    while pids := ip("netns", "pids", space, check=False).split():
        if time.monotonic() > end:
            number = signal.SIGKILL
        for pid in pids:
            with contextlib.suppress(ProcessLookupError):
                os.kill(int(pid), number)
        time.sleep(0.05)
