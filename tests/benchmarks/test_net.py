"""The network benchmark's own parts: frames stay right however they vary, ratios are ratios."""

import json
import os
import socket
from xml.etree import ElementTree

import pytest

from benchmarks.net import pace, report
from benchmarks.net.generator import _varied, frame_of
from pylvs.drivers.programs import bpf
from pylvs.lab.capture import faults
from tests import programs

MAC = "02:00:00:00:00:01"
# Different ones of 200 frames: a thousand ports meet each other.
LEAST = {"udp": 1, "syn": 200, "1k": 155, "1m": 198}
MOST = {"udp": 1, "syn": 200, "1k": 200, "1m": 200}


@pytest.mark.parametrize("kind", ["udp", "syn", "1k", "1m"])
def test_frames_are_right_however_they_vary(kind):
    frame, spreads = frame_of("lo", MAC, "192.0.2.10", 80, kind)
    assert len(frame) == 60
    sent = {_varied(frame, spreads) for _ in range(200)}
    assert LEAST[kind] <= len(sent) <= MOST[kind]
    assert not any(faults(one[14:]) for one in sent)


@pytest.fixture
def state():
    """Return what the generator's program keeps: when to send, how often, and how many it sent."""
    if os.geteuid():
        pytest.skip("only root may load programs")
    try:
        made = bpf.Map(bpf.ARRAY, 4, pace.STATE.size, 1)
    except OSError as error:
        pytest.skip(f"no bpf here: {error}")
    yield made
    made.close()


@pytest.mark.parametrize("kind", ["udp", "syn", "1k", "1m"])
def test_the_kernel_makes_the_frames_and_keeps_their_checksums_right(state, kind):
    frame, spreads = frame_of("lo", MAC, "192.0.2.10", 80, kind)
    program = bpf.load(pace.assemble(frame, spreads, state.descriptor))
    answers = [programs.run(program, bytes(60)) for _ in range(200)]
    os.close(program)
    assert {answer for answer, _ in answers} == {bpf.XDP_TX}
    made = {one for _, one in answers}
    assert 0.95 * LEAST[kind] < len(made) <= MOST[kind]
    assert made == {frame} or kind != "udp"
    if kind in ("1k", "1m"):
        ports = [int.from_bytes(one[34:36], "big") for one in made]
        clients = {one[29] for one in made}
        assert (max(ports) < 1_024) == (kind == "1k")
        assert clients == (set(range(16)) if kind == "1m" else {0})
    assert not any(faults(one[14:]) for one in made)
    assert pace.STATE.unpack(state[bytes(4)])[2] == 200


def test_a_pace_is_kept_in_the_kernel(state):
    hour_ns = 3_600 * 10**9
    state[bytes(4)] = pace.STATE.pack(0, hour_ns, 0)
    frame, spreads = frame_of("lo", MAC, "192.0.2.10", 80, "udp")
    program = bpf.load(pace.assemble(frame, spreads, state.descriptor))
    answers = [programs.run(program, bytes(60))[0] for _ in range(3)]
    os.close(program)
    assert answers == [bpf.XDP_TX, bpf.XDP_DROP, bpf.XDP_DROP]
    due, _, sent = pace.STATE.unpack(state[bytes(4)])
    assert due > hour_ns
    assert sent == 1


def test_what_the_kernel_does_not_take_is_told_with_its_words():
    if os.geteuid():
        pytest.skip("only root may load them")
    with pytest.raises(OSError, match=r"\w"):
        bpf.load(bytes(8))
    assert socket.if_nametoindex("lo")


ROUNDS = {
    "nft dnat": [
        {"bulk": 10.0, "p50": 20.0},
        {"bulk": 8.0, "p50": 10.0},
        {"bulk": 4.0, "p50": 30.0},
    ],
    "pylvs <nat>": [
        {"bulk": 9.0, "p50": 40.0},
        {"bulk": 8.0, "p50": 30.0},
        {"bulk": 2.0, "p50": 30.0},
    ],
    "plain": [{"overload": 0.1}] * 3,
}


def test_ratios_are_of_the_same_round_and_their_median_counts():
    told = report.summary(ROUNDS)
    assert told["bulk"]["pylvs <nat>"]["ratio"] == 0.9
    assert told["bulk"]["pylvs <nat>"] | {"ratio": 0} == {
        "median": 8,
        "min": 2,
        "max": 9,
        "ratio": 0,
    }
    assert told["p50"]["pylvs <nat>"]["ratio"] == 2
    assert "ratio" not in told["overload"]["plain"]


def test_who_was_not_reached_in_the_last_round_is_compared_in_those_before():
    cut_short = ROUNDS | {"pylvs <nat>": ROUNDS["pylvs <nat>"][:2]}
    assert report.summary(cut_short)["bulk"]["pylvs <nat>"]["ratio"] == pytest.approx(0.95)


def test_results_are_written_for_programs_and_for_people(tmp_path, capsys):
    report.write_json(tmp_path / "net.json", ROUNDS, {"cores": 2})
    document = json.loads((tmp_path / "net.json").read_text())
    assert document["summary"]["bulk"]["nft dnat"]["ratio"] == 1
    assert document["rounds"] == ROUNDS
    report.write_plot(tmp_path / "net.svg", ROUNDS)
    picture = ElementTree.parse(tmp_path / "net.svg").getroot()
    texts = [one.text for one in picture.iter() if one.tag.endswith("text")]
    assert "pylvs <nat>" in texts
    report.show(ROUNDS)
    lines = capsys.readouterr().out.splitlines()
    assert any(line.split() == ["pylvs", "<nat>", "8.00", "30.00"] for line in lines)
    assert any(line.split() == ["0.90", "x", "2.00", "x"] for line in lines)
