"""What Linux 6.1 did with given frames, and that the director does the same, byte for byte.

``core.json.xz`` holds captures from a real kernel's IPVS (ipvsadm 1.31): commands, frames in,
frames out, listings.  Masked is what no two runs of the kernel share: the identification, and with
it the header checksum, of packets the director itself originates without DF.
"""

import json
import lzma
import pathlib

import pytest

from pylvs.cli import render
from pylvs.control import listing
from pylvs.errors import RuleError
from tests.world import START_MS, World

VECTORS = json.loads(lzma.decompress(pathlib.Path(__file__).with_name("core.json.xz").read_bytes()))
VIPS = ("192.0.2.10", "192.0.2.20")
ASKS = ("-L", "-l", "-S", "-Z")


def masked(port, frame):
    """Hide the identification and checksum of an IPv4 packet born in the director without DF."""
    frame = bytearray(frame)
    is_ip = frame[12:14] == b"\x08\x00"
    born = is_ip and (frame[23] == 4 or (frame[23] == 1 and frame[22] == 64))
    if born and not frame[20] & 0x40:
        frame[18:20] = frame[24:26] = b"\0\0"
    return port, bytes(frame)


def carry_out(world, line):
    for command in line.split(";"):
        carry_out_one(world, command.strip())


def carry_out_one(world, command):
    words = command.split()
    if words[0] != "ipvsadm" or words[1].startswith(ASKS):
        return
    try:
        world.rule(command)
    except RuleError as error:
        assert error.status == 255, command  # noqa: PT017  (refused by the kernel too)


def ran(vector):
    """Run the vector; return its end's world, and what left after each event: ours, Linux's."""
    world = World(local=VIPS)
    ours, linux = [], []
    for command in vector["commands"]:
        carry_out(world, command)
    events = vector["events"]
    at = 0
    while at < len(events):
        event = events[at]
        at += 1
        world.now_ms = START_MS + int(event["t"] * 1000)
        if event["dir"] == "cmd":
            carry_out(world, event["cmd"])
            continue
        assert event["dir"] == "in", f"event {at}: the kernel sent what nobody caused"
        got = world.send(bytes.fromhex(event["hex"]), "cs".index(event["port"]))
        want = []
        while at < len(events) and events[at]["dir"] == "out":
            want.append(("cs".index(events[at]["port"]), bytes.fromhex(events[at]["hex"])))
            at += 1
        ours.append((at, [masked(*one) for one in got]))
        linux.append((at, [masked(*one) for one in want]))
    return world, ours, linux


@pytest.mark.parametrize("name", VECTORS)
def test_frames_leave_as_they_left_linux(name):
    _, ours, linux = ran(VECTORS[name])
    assert ours == linux


@pytest.mark.parametrize(
    "name", [name for name in VECTORS if "ipvsadm -Ln --stats" in VECTORS[name]["final"]]
)
def test_counters_are_those_of_linux(name):
    world, _, _ = ran(VECTORS[name])
    assert (
        render.stats(listing.read(world.manager)) == VECTORS[name]["final"]["ipvsadm -Ln --stats"]
    )


@pytest.mark.parametrize(
    "name", [name for name in VECTORS if "ipvsadm -Ln" in VECTORS[name]["final"]]
)
def test_the_table_is_listed_as_linux_lists_it(name):
    world, _, _ = ran(VECTORS[name])
    assert render.table(listing.read(world.manager)) == VECTORS[name]["final"]["ipvsadm -Ln"]
