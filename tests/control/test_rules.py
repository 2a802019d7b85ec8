"""Rules text: what ipvsadm takes, its phrases, and everything wrong named at once."""

import shlex

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pylvs.control.ipvsadm.rules import Lines, parse_line, parse_text
from pylvs.control.model import MASQUERADE, ROUTE, TUNNEL, ServiceKey, Table
from pylvs.errors import RuleError, UsageError
from tests.conftest import examples
from tests.packets import number


def parse(text):
    return parse_line(text.split())


@pytest.mark.parametrize(
    "text",
    [
        "-A -t 1.2.3.4:80 -s wrr",
        "-A -t1.2.3.4:80 -swrr",
        "--add-service --tcp-service 1.2.3.4:80 --scheduler wrr",
        "--add-service --tcp-service=1.2.3.4:80 --scheduler=wrr",
        "ipvsadm -At 1.2.3.4:80 -s wrr",
    ],
)
def test_a_service_is_added_however_people_write_it(text):
    command = parse(text)
    assert (command.verb, command.terms.scheduler) == ("A", "wrr")
    assert command.service == ServiceKey(6, number("1.2.3.4"), 80)


@pytest.mark.parametrize(
    ("option", "method"), [("-m", MASQUERADE), ("-g", ROUTE), ("-i", TUNNEL), ("", ROUTE)]
)
def test_a_server_is_added_with_its_method(option, method):
    command = parse(f"-a -u 1.2.3.4:53 -r 10.0.0.1:53 {option} -w 7")
    assert (command.server.method, command.server.weight) == (method, 7)


def test_a_port_is_overwritten_without_masquerading_as_ipvsadm_does():
    assert parse("-a -t 1.2.3.4:80 -r 10.0.0.1:8080 -g").server.key.port == 80
    assert parse("-a -t 1.2.3.4:80 -r 10.0.0.1:8080 -m").server.key.port == 8080
    assert parse("-d -t 1.2.3.4:80 -r 10.0.0.1:8080").server.key.port == 8080


@pytest.mark.parametrize(
    ("text", "said", "status"),
    [
        ("", "Try `ipvsadm -h'", 255),
        ("-x", "Try `ipvsadm -h'", 255),
        ("add", "Try `ipvsadm -h'", 255),
        ("-A -t", "-t: missing argument", 255),
        ("-A --scheduler", "--scheduler: missing argument", 255),
        ("-A -t 1.2.3.4:80 -1", "-1: unknown option", 255),
        ("-A -t 1.2.3.4:80 --what", "--what: unknown option", 255),
        ("-A -t 1.2.3.4:80 -D", "invalid option `-D'", 2),
        ("-A -t 1.2.3.4:80 --delete-service", "invalid option `--delete-service'", 2),
        ("-A", "You need to supply the 'service-address' option for the 'add-service' command", 2),
        ("-a -t 1.2.3.4:80", "You need to supply the 'real-server' option for the 'add-server'", 2),
        ("-A -t 1.2.3.4:80 -r 1.1.1.1", "Illegal 'real-server' option with the 'add-service'", 2),
        ("-A -t 1.2.3.4:80 -u 1.2.3.4:80", "multiple 'service-address' options specified", 2),
        ("-A -t 80", "illegal virtual server address[:port] specified", 2),
        ("-A -t 1.2.3.4:99999", "illegal virtual server address[:port] specified", 2),
        ("-a -t 1.2.3.4:80 -r nobody", "illegal real server address[:port] specified", 2),
        ("-a -t 1.2.3.4:80 -r 1.1.1.1 -w -1", "illegal weight specified", 2),
        ("-a -t 1.2.3.4:80 -r 1.1.1.1 -w 2147483648", "illegal weight specified", 2),
        ("-A -t 1.2.3.4", "Zero port specified for non-persistent service", 2),
        ("-A -t 1.2.3.4:80 extra", "unexpected argument extra", 2),
        ("--set 1 2", "--set option requires 3 timeout values", 2),
        ("--set 1 2 x", "invalid timeout value `x' specified", 2),
        ("-A -t 1.2.3.4:80 -p 0", "invalid timeout value `0' specified", 2),
        ("-A -t 1.2.3.4:80 -p 300 -M x", "illegal virtual server persistent mask", 2),
        ("-A -f 0", "invalid fwmark value `0' specified", 2),
        ("-A -f 1 -b sh-port", "incompatible scheduler flag `sh-port'", 2),
        ("-A -f 1 -b what", "invalid scheduler flag `what'", 2),
        ("-A -t 1.2.3.4:80 -o", "One-Packet Scheduling is only for UDP virtual services", 2),
        ("-a -t 1.2.3.4:80 -r 1.1.1.1 -x -1", "illegal u_threshold specified", 2),
        ("-a -t 1.2.3.4:80 -r 1.1.1.1 -g --tun-type gre", "Tunnel options conflict", 2),
        ("-a -t 1.2.3.4:80 -r 1.1.1.1 -i --tun-type gue", "'tun-port' option for the 'gue'", 2),
        ("-a -t 1.2.3.4:80 -r 1.1.1.1 -i --tun-csum", "'tun-csum' option with the 'ipip'", 2),
        ("-a -t 1.2.3.4:80 -r 1.1.1.1 -i --tun-type x", "illegal tunnel type specified", 2),
        ("-a -t 1.2.3.4:80 -r 1.1.1.1 -i --tun-type gue --tun-port 0", "illegal tunnel port", 2),
        ("--start-daemon", "Try `ipvsadm -h'", 255),
        ("--start-daemon x", "illegal start-daemon parameter specified", 2),
        ("--stop-daemon x", "illegal start_daemon specified", 2),
        ("--start-daemon master --syncid 256", "illegal syncid specified", 2),
        ("--start-daemon master --mcast-group 10.0.0.1", "invalid IPv4 mcast-group", 2),
        ("--start-daemon master --mcast-group x", "invalid IPv4 mcast-group", 2),
        ("--start-daemon master extra", "unexpected argument extra", 2),
        ("-A -t [2001:db8::1", "illegal virtual server address", 2),
        ("-A -M 255.255.255.0 -s rr", "need to supply the 'service-address'", 2),
        ("-A -t [2001:db8::1]80", "illegal virtual server address", 2),
        ("-A -t [2001:db8::1] -p 9", "illegal virtual server address", 2),
        ("-A -t [::1.2.3.4]:80", "illegal virtual server address", 2),
        ("-A -t 2001:db8::1", "Zero port specified for non-persistent", 2),
        ("-A -t [2001:db8::1]:80 -p 9 -M 129", "illegal ipv6 netmask specified", 2),
        ("-A -t 192.0.2.1:80 -p 9 -M 2001:db8::", "illegal virtual server persistent mask", 2),
        ("-a -t 192.0.2.1:80 -r [2001:db8::1]:80 -m", "Different address family is allowed", 2),
        ("-a -f 1 -6 -r 10.0.0.1 -g", "Different address family is allowed", 2),
        ("-A -6 -f 1", "-6 used before -f", 2),
        ("-A -t 1.2.3.4:80 -6", "-6 used before -f", 2),
        ("-L --timeout --daemon", "conflicts with the 'timeout' option in the 'list'", 2),
        ("-Lc --stats", "options conflicts in the list command", 2),
    ],
)
def test_faults_are_named_in_ipvsadms_words(text, said, status):
    with pytest.raises(RuleError) as caught:
        parse(text)
    assert said in str(caught.value)
    assert caught.value.status == status


@pytest.mark.parametrize(
    ("lines", "said"),
    [
        (["-A -t 1.2.3.4:80", "-A -t 1.2.3.4:80"], "Service already exists"),
        (["-E -t 1.2.3.4:80"], "No such service"),
        (["-D -t 1.2.3.4:80"], "No such service"),
        (["-a -t 1.2.3.4:80 -r 1.1.1.1"], "Service not defined"),
        (["-A -t 1.2.3.4:80", *["-a -t 1.2.3.4:80 -r 1.1.1.1"] * 2], "Destination already exists"),
        (["-A -t 1.2.3.4:80", "-d -t 1.2.3.4:80 -r 1.1.1.1"], "No such destination"),
        (["-A -t 1.2.3.4:80", "-a -t 1.2.3.4:80 -r 224.0.0.1"], "address not unicast"),
    ],
)
def test_the_table_refuses_what_the_kernel_refuses(lines, said):
    table = Table()
    *before, last = lines
    for line in before:
        table.apply(parse(line))
    with pytest.raises(RuleError, match=said) as caught:
        table.apply(parse(last))
    assert caught.value.status == 255


def test_edits_and_removals_do_what_they_say():
    table = Table()
    for line in (
        "-A -t 1.2.3.4:80 -s rr",
        "-a -t 1.2.3.4:80 -r 1.1.1.1 -m -w 3",
        "-e -t 1.2.3.4:80 -r 1.1.1.1:80 -m -w 5",
        "-E -t 1.2.3.4:80 -s lc",
        "--set 10 0 20",
    ):
        table.apply(parse(line))
    (service,) = table.services.values()
    (server,) = service.servers.values()
    assert (service.terms.scheduler, server.weight, table.timeouts) == ("lc", 5, (10, 120, 20))
    table.apply(parse("-d -t 1.2.3.4:80 -r 1.1.1.1:80"))
    assert not service.servers
    table.apply(parse("-C"))
    assert not table.services


def test_a_text_with_comments_and_blank_lines_is_taken():
    text = [
        "# a comment",
        "",
        "-A -t 1.2.3.4:80 -s rr  # trailing",
        "-a -t 1.2.3.4:80 -r 1.1.1.1 -m",
    ]
    assert [one.verb for one in parse_text(text, "rules")] == ["A", "a"]


def test_a_text_is_refused_whole_with_every_fault_named():
    text = [
        "-A -t 1.2.3.4:80",
        "-A -t bad",
        "",
        "-a -t 1.2.3.4:80 -r 1.1.1.1 -w x",
        "-A -t 1.2.3.4:80",
    ]
    with pytest.raises(UsageError) as caught:
        parse_text(text, "rules")
    assert [line.split(":")[1] for line in str(caught.value).splitlines()] == ["2", "4", "5"]


WORDS = st.sampled_from(
    shlex.split(
        "-a -d -e -A -t -u -f 5 192.0.2.10:80 192.0.2.10 [2001:db8::1]:80 -r 10.0.0.11:8080 "
        "10.0.0.12 [2001:db8::2]:80 -m -g -i -w 3 -x x"
    )
)
LINES = st.lists(
    st.builds(
        lambda start, server, end: [*start, "-r", server, *end],
        st.sampled_from((["-a", "-t", "192.0.2.10:80"], ["-d", "-f", "5"], ["-e", "-r"])),
        st.sampled_from(("10.0.0.11:8080", "10.0.0.12", "[2001:db8::2]:80", "-r", "x", "-m")),
        st.sampled_from(
            ([], ["-m"], ["-m", "-w", "2"], ["-g"], ["-i"], ["-w"], ["-r", "10.0.0.1"])
        ),
    )
    | st.lists(WORDS, max_size=7),
    max_size=8,
)


@given(LINES)
@examples(500)
def test_a_line_means_the_same_wherever_in_a_text_it_stands(lines):
    parser = Lines()
    for words in lines:
        assert outcome(parser.parse, words) == outcome(parse_line, words)


def outcome(parse, words):
    try:
        return parse(words)
    except RuleError as error:
        return str(error), error.status
