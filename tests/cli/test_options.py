"""What the commands refuse, with which status and which advice."""

import pytest

from pylvs.cli.main import main
from pylvs.cli.services import commands_of, parse_settings
from pylvs.control.config.marks import parse_mark
from pylvs.errors import UsageError


def run(capsys, *arguments):
    with pytest.raises(SystemExit) as caught:
        main(list(arguments))
    return caught.value.code, capsys.readouterr().err


VIP = ("--vip", "192.0.2.10:80")


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (VIP, "name where to direct"),
        (("--iface", "a", "--tap", "b", *VIP), "name where to direct"),
        (("--iface", "a", "--iface", "a", *VIP), "given twice"),
        (("--iface", "a", "--rs", "10.0.0.1"), "--rs without --vip"),
        (("--iface", "a", "--vip", "192.0.2.10"), "no port"),
        (("--iface", "a", "--vip", "192.0.2.10:80/icmp"), "none of tcp, udp, sctp"),
        (("--iface", "a", "--vip", "[2001:db8::1]"), "give IP:PORT"),
        (("--iface", "a", "--vip", "[2001:db8::1]:80", "--rs", "10.0.0.1"), "other kind of IP"),
        (("--iface", "a", "--vip", "nobody:80"), "not an IP address"),
        (("--iface", "a", *VIP, "--rs", "10.0.0.1:8080"), "only --mode nat and fullnat can"),
        (("--iface", "a", *VIP, "--rs", "10.0.0.1,weight=x"), "weight 'x' is not"),
        (("--iface", "a", *VIP, "--rs", "10.0.0.1,heavy"), "is not weight=N"),
        (("--iface", "a", *VIP, "--rs", "10.0.0.1", "--rs", "10.0.0.1"), "given twice"),
        (("--iface", "a", *VIP, *VIP), "given twice"),
        (("--iface", "a", *VIP, "--timeout", "1,2"), "three numbers"),
        (("--iface", "a", *VIP, "--mode", "nat", "-g"), "contradict"),
        (("--iface", "a", *VIP, "--rules", "x"), "--rules states everything"),
        (("--iface", "a", "--mode", "nat", "--rules", "x"), "--rules states everything"),
        (("--iface", "a", "-s", "rr", "--rules", "x"), "--rules states everything"),
        (("--iface", "a", "--rules", "/no/such/file"), "No such file"),
        (("--tun", "t", *VIP, "--rs", "10.0.0.1", "--mode", "dr"), "DR cannot work"),
        (("--iface", "a", *VIP, "--mode", "fast"), "not one of"),
        (("--tap", "t", *VIP, "--dip", "10.0.0.1/99"), "give IP or IP/LEN"),
        (("--iface", "a", *VIP, "--sysctl", "sloppy_tcp"), "give NAME=VALUE"),
        (("--iface", "a", *VIP, "--sysctl", "sloppy_tcp=x"), "the value a number"),
        (("--iface", "a", *VIP, "--sysctl", "sloppy_tcp=2"), "is 0 to 1, not 2"),
        (("--iface", "a", *VIP, "--sysctl", "sloppy=1"), "unknown; there are net.ipv4.ip_forward"),
        (("--iface", "a", *VIP, "--mark", "0=192.0.2.0/24"), "give MARK="),
        (("--iface", "a", *VIP, "--mark", "5"), "give MARK="),
        (("--iface", "a", *VIP, "--mark", "5=192.0.2.0/33"), "give MARK="),
        (("--iface", "a", *VIP, "--mark", "5=gre/192.0.2.0/24"), "give MARK="),
        (("--iface", "a", *VIP, "--mark", "5=192.0.2.0:9-2"), "give MARK="),
    ],
)
def test_usage_is_refused_with_status_2_and_advice(capsys, arguments, said):
    status, text = run(capsys, "run", *arguments)
    assert status == 2
    assert said in text


def test_an_unknown_interface_is_a_failure_that_names_the_known_ones(capsys):
    status, text = run(capsys, "run", "--iface", "nosuch0", *VIP, "--rs", "10.0.0.1")
    assert status == 1
    assert "nosuch0 does not exist; there are" in text
    assert "lo" in text


def test_every_fault_is_named_at_once(capsys):
    status, text = run(capsys, "run", "--iface", "a", *VIP, "--rs", "x", "--rs", "10.0.0.1,w=1")
    assert status == 2
    assert len(text.strip().splitlines()) == 2


def test_what_is_stated_becomes_commands():
    stated = {"mode": "nat", "mode_flag": None, "rules": None}
    stated |= {"scheduler": "wrr", "timeout": "1,2,3"}
    commands = commands_of(
        ("192.0.2.10:80", "192.0.2.10:53/udp"), ("10.0.0.1:8080,weight=4", "10.0.0.2"), **stated
    )
    assert [one.verb for one in commands] == ["set", "A", "a", "a", "A", "a", "a"]
    assert commands[2].server.key.port == 8080
    assert commands[2].server.weight == 4
    assert commands[6].server.key.port == 53


@pytest.mark.parametrize(
    "words", [["--version"], ["--help"], ["run", "--help"], ["replay", "-h"], ["lab", "-h"]]
)
def test_help_is_given(capsys, words):
    with pytest.raises(SystemExit) as caught:
        main(words)
    assert caught.value.code == 0
    assert capsys.readouterr().out


def test_reasons_are_listed_with_their_healthy_values(capsys):
    with pytest.raises(SystemExit):
        main(["reasons"])
    text = capsys.readouterr().out
    assert "scheduler_failed" in text
    assert "Healthy" in text


def test_the_shell_lines_of_a_real_server_are_printed(capsys):
    with pytest.raises(SystemExit):
        main(["realserver", "setup", "--vip", "192.0.2.10", "--mode", "dr", "--dry-run"])
    text = capsys.readouterr().out
    assert "echo 1 > /proc/sys/net/ipv4/conf/all/arp_ignore" in text
    assert "ip address add 192.0.2.10/32 dev lo" in text
    for mode in ("tun", "nat"):
        with pytest.raises(SystemExit):
            main(["realserver", "undo", "--vip", "192.0.2.10", "--mode", mode, "--dry-run"])
    assert "tunl0" in capsys.readouterr().out


def test_a_mark_is_read_into_a_rule_for_each_range_of_ports():
    rules = parse_mark("0x5=tcp/192.0.2.0/24:80,8000-8080")
    assert {(rule.mark, rule.protocol, rule.destination_prefix) for rule in rules} == {(5, 6, 24)}
    assert [rule.ports for rule in rules] == [(80, 80), (8000, 8080)]
    (rule,) = parse_mark("7=192.0.2.10")
    assert (rule.protocol, rule.destination_prefix, rule.ports) == (0, 32, (0, 65_535))
    (rule,) = parse_mark("7=udp/[2001:db8::]/32:53")
    assert (rule.family, rule.destination_prefix, rule.ports) == (6, 32, (53, 53))
    (rule,) = parse_mark("7=[::]/0")
    assert (rule.family, rule.destination_prefix) == (6, 0)


@pytest.mark.parametrize(
    "text", ["7=[::]/1", "7=[2001:db8::1", "7=[2001:db8::1]x", "7=[2001:db8::1]:", "7=[192.0.2.1]"]
)
def test_a_mark_that_is_malformed_is_refused_with_an_example(text):
    with pytest.raises(UsageError, match="as in 5=tcp/"):
        parse_mark(text)


def test_settings_are_read_by_long_and_short_names():
    assert parse_settings(("sloppy_tcp=1", "net/ipv4/vs/drop_entry=3")) == {
        "sloppy_tcp": 1,
        "net/ipv4/vs/drop_entry": 3,
    }
