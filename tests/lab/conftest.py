"""Labs are built once a method and shared by its tests; without the right to build, they skip."""

import pathlib
import sys

import pytest

from pylvs.errors import HostError
from pylvs.lab.build import Lab, require_tools
from pylvs.lab.topology import DSCP, bracketed, topology


def pytest_addoption(parser):
    parser.addoption("--director", default="", help="words that every director is started with too")


@pytest.fixture(autouse=True, scope="session")
def _directors_are_started_with_more(request):
    """Have all of a lab's tests run by another driver, say: ``--director="--driver xdp"``."""
    words, start = request.config.getoption("--director").split(), Lab.start_director
    if not words:
        yield
        return

    def start_with_more(lab, arguments=None):
        given = lab.topology.director_arguments() if arguments is None else arguments
        start(lab, [*given, *words])

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Lab, "start_director", start_with_more)
        yield


STATION = pathlib.Path(__file__).with_name("station.py")


@pytest.fixture(autouse=True, scope="session")
def _labs_can_be_built():
    try:
        require_tools()
    except HostError as error:
        pytest.skip(f"no lab here: {error}")


def rules(lab, scheduler="rr", weights=(1, 1)):
    """Return rules text: the lab's service on TCP and, at the same port, on UDP."""
    shape = lab.topology
    options = {"nat": "-m", "dr": "-g", "tun": "-i", "fullnat": "--fullnat"}
    method = {**options, "l3dsr": f"--l3dsr {DSCP}"}[shape.mode]
    lines = []
    for letter in "tu":
        service = f"-{letter} {shape.endpoint}"
        lines.append(f"-A {service} -s {scheduler}")
        for address, weight in zip(shape.servers.values(), weights, strict=True):
            server = f"{bracketed(address)}:{shape.server_port}"
            lines.append(f"-a {service} -r {server} {method} -w {weight}")
    return "\n".join(lines) + "\n"


def start_director(lab, text, *options):
    path = lab.folder / "rules"
    path.write_text(text, encoding="ascii")
    ports = [
        one.name
        for node in lab.topology.nodes
        if node.name == "director"
        for one in node.interfaces
    ]
    words = [word for port in ports for word in ("--iface", port)]
    words += ["--local", lab.topology.local] if lab.topology.local else []
    lab.start_director([*words, *options, "--rules", str(path)])


def start_stations(lab):
    shape = lab.topology
    for node, address in shape.servers.items():
        lab.spawn(
            node,
            [sys.executable, str(STATION), "serve", node, str(shape.server_port)],
            f"{node}.log",
        )
        lab._await_port(node, address, shape.server_port)


def ask(lab, action, *arguments):
    """Run the station's client in the lab's client and return its lines."""
    shape = lab.topology
    words = [sys.executable, str(STATION), action, shape.vip, str(shape.port), *map(str, arguments)]
    return lab.shell("client", " ".join(words)).splitlines()


MODES = ("nat", "dr", "tun", "fullnat")
DRIVERS = ("packet", "xdp")
KINDS = [(mode, version, "packet", 1) for version in (4, 6) for mode in MODES]
KINDS += [("l3dsr", 4, "packet", 1), *((mode, 4, "xdp", 1) for mode in MODES), ("nat", 6, "xdp", 1)]
KINDS += [(mode, 4, "packet", 2) for mode in MODES] + [
    ("nat", 4, "xdp", 2),
    ("nat", 6, "packet", 2),
]


@pytest.fixture(scope="module", params=KINDS, ids=lambda kind: "{}-ipv{}-{}-{}".format(*kind))
def lab(request):
    mode, version, driver, workers = request.param
    # One with fewer queues than workers: it has to do as well.
    queues = 1 if mode == "dr" else workers
    with Lab(topology(mode, version), queues=queues) as built:
        start_stations(built)
        start_director(built, rules(built), "--driver", driver, "--workers", str(workers))
        yield built
        built.stop_director()
