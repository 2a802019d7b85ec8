"""The three cases of the kernel's own IPVS self-test, in its network, with ipvsadm being ours.

client 10.0.0.2 -- one LAN -- 10.0.0.1 director 172.16.0.1 -- 172.16.0.2 server 10.0.0.3 -- that LAN

The VIP is an address of the director's host.  Replies leave the server by the LAN it shares with
the client, but for NAT.
"""

import secrets
import sys

import pytest

from pylvs.lab.build import Lab
from pylvs.lab.topology import Interface, Node, Topology

VIP = "207.175.44.110"
RIP = "172.16.0.2"
PORT = 8080
METHODS = {"nat": "-m", "dr": "", "tun": "-i"}
LISTEN = """
import socket, sys
listening = socket.create_server(("", int(sys.argv[1])))
listening.settimeout(10)
print("listening", flush=True)
peer, _ = listening.accept()
peer.settimeout(5)
print(peer.makefile("rb").read().hex(), flush=True)
"""
SEND = """
import socket, sys
with socket.create_connection((sys.argv[1], int(sys.argv[2])), timeout=2) as peer:
    peer.sendall(bytes.fromhex(sys.argv[3]))
"""


def network(mode):
    server = [Interface("veth21", "back", f"{RIP}/24")]
    if mode != "nat":
        server.append(Interface("veth20", "front", "10.0.0.3/24"))
    director = (
        Interface("veth10", "front", "10.0.0.1/24"),
        Interface("veth12", "back", "172.16.0.1/24"),
    )
    nodes = (
        Node("client", (Interface("veth0", "front", "10.0.0.2/24"),)),
        Node("director", director, forwards=mode != "tun"),
        Node("server", tuple(server), gateway="172.16.0.1" if mode == "nat" else ""),
    )
    return Topology(mode, nodes, VIP, PORT, PORT, {"server": RIP})


@pytest.mark.parametrize("mode", ["dr", "nat", "tun"])
def test_what_the_client_sends_is_what_the_server_reads(mode):
    with Lab(network(mode)) as lab:
        lab.shell("client", f"ip route add {VIP} via 10.0.0.1 dev veth0")
        lab.shell("director", f"ip address add {VIP}/32 dev lo label lo:1")
        lab.start_director(["--iface", "veth10", "--iface", "veth12"])
        ipvsadm = f"{sys.executable} -m pylvs.control.client"
        lab.shell("director", f"{ipvsadm} -A -t {VIP}:{PORT} -s rr")
        lab.shell("director", f"{ipvsadm} -a -t {VIP}:{PORT} -r {RIP}:{PORT} {METHODS[mode]}")
        server = lab.spawn("server", [sys.executable, "-c", LISTEN, str(PORT)], "server.log")
        while "listening" not in lab.log("server.log"):
            assert server.poll() is None, lab.log("server.log")
        data = secrets.token_hex(32)
        lab.shell("client", f"{sys.executable} -c '{SEND}' {VIP} {PORT} {data}")
        assert server.wait(10) == 0
        assert lab.log("server.log").split()[-1] == data
        lab.stop_director()
