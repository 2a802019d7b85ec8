"""Replay: the capture's own time, no root, the same bytes every time."""

import dpkt
import pytest

from pylvs.cli.main import main
from pylvs.drivers import pcap
from pylvs.errors import UsageError
from pylvs.lab.capture import describe, faults, packets
from tests.packets import tcp_frame, udp_frame
from tests.world import CLIENT, VIP

HOSTS = ["--host", "192.0.2.254/24=02:00:00:00:01:fe", "--host", "10.0.0.254/24=02:00:00:00:02:fe"]


def capture(path, frames, linktype=dpkt.pcap.DLT_EN10MB):
    with open(path, "wb") as file:
        writer = dpkt.pcap.Writer(file, linktype=linktype)
        for seconds, frame in frames:
            writer.writepkt(frame, ts=seconds)
    return str(path)


def replay(*arguments):
    with pytest.raises(SystemExit) as caught:
        main(["replay", *map(str, arguments)])
    return caught.value.code


def answer(port=40_000):
    reply = tcp_frame("10.0.0.11", CLIENT, 8080, port, "SA", ack=1001)
    return bytes.fromhex("0200000002fe02000000020b") + reply[12:]


NAT = ["--vip", f"{VIP}:80", "--rs", "10.0.0.11:8080", "--mode", "nat"]


def test_a_conversation_is_translated_both_ways_and_stamped_with_its_times(tmp_path, capsys):
    frames = [(100.25, tcp_frame(CLIENT, VIP, 40_000, 80)), (100.5, answer())]
    source = capture(tmp_path / "in.pcap", frames)
    assert replay(source, *NAT, *HOSTS, "-o", tmp_path / "out.pcap") == 0
    sent = list(pcap.read(str(tmp_path / "out.pcap")))
    assert [seconds for seconds, _ in sent] == [100.25, 100.5]
    assert all(faults(packet) == [] for packet in packets(str(tmp_path / "out.pcap")))
    assert sent[0][1][30:34] == bytes([10, 0, 0, 11])
    assert sent[1][1][26:30] == bytes([192, 0, 2, 10])
    assert sent[1][1][:6] == bytes.fromhex("020000000101")  # the client's, as captured
    assert "TCP  192.0.2.10:80" in capsys.readouterr().out
    assert "TCP 40000 > 8080 [S]" in describe(sent[0][1][14:])


def test_the_same_capture_gives_the_same_bytes(tmp_path):
    frames = [(1 + n, tcp_frame(CLIENT, VIP, 40_000 + n % 7, 80)) for n in range(50)]
    source = capture(tmp_path / "in.pcap", frames)
    for name in ("a", "b"):
        replay(source, *NAT, "-o", tmp_path / name)
    assert (tmp_path / "a").read_bytes() == (tmp_path / "b").read_bytes()
    assert len(list(pcap.read(str(tmp_path / "a")))) == 50


def test_time_is_the_captures(tmp_path):
    rules = tmp_path / "rules"
    rules.write_text(
        f"-A -u {VIP}:53 -s rr\n-a -u {VIP}:53 -r 10.0.0.11 -g\n-a -u {VIP}:53 -r 10.0.0.12 -g\n"
    )
    frame = udp_frame(CLIENT, VIP, 40_000, 53)
    source = capture(tmp_path / "in.pcap", [(5, frame), (304, frame), (604, frame)])
    assert (
        replay(
            source,
            "--rules",
            rules,
            "-o",
            tmp_path / "out",
            "--neighbour",
            "10.0.0.12=02:aa:00:00:00:0c",
        )
        == 0
    )
    macs = [frame[:6].hex(":") for _, frame in pcap.read(str(tmp_path / "out"))]
    assert macs == ["02:aa:00:00:00:0c", "02:aa:00:00:00:0c", "02:00:0a:00:00:0b"]


def test_what_cannot_be_replayed_is_refused(tmp_path, capsys):
    text = tmp_path / "text"
    text.write_text("no capture")
    assert replay(text, *NAT, "-o", tmp_path / "out") == 2
    assert "not a pcap" in capsys.readouterr().err
    assert replay(tmp_path / "none", *NAT, "-o", tmp_path / "out") == 2
    raw = capture(tmp_path / "raw", [], linktype=101)
    assert replay(raw, *NAT, "-o", tmp_path / "out") == 2
    assert "only Ethernet" in capsys.readouterr().err
    source = capture(tmp_path / "in", [(1, tcp_frame(CLIENT, VIP, 1, 80))])
    cut = tmp_path / "cut"
    cut.write_bytes((tmp_path / "in").read_bytes()[:30])
    with pytest.raises(UsageError, match="middle of a record"):
        list(pcap.read(str(cut)))
    assert replay(source, *NAT, "-o", "/nonexistent/out") == 1
    assert replay(source, *NAT, "-o", tmp_path / "o", "--host", "x") == 2
    assert replay(source, *NAT, "-o", tmp_path / "o", "--neighbour", "10.0.0.1=zz") == 2
    assert not (tmp_path / "out").exists()
