"""Configuration files: what they state, every fault named with its place, and the way back."""

import contextlib

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pylvs.control.config import checking, file, schema, services
from pylvs.control.model import Timeouts, marked
from pylvs.errors import UsageError
from pylvs.wire.text import address_of
from tests.conftest import examples

WHOLE = """
marks = ["5=tcp/192.0.2.10:80,443"]
[director]
interfaces = ["eth0", "eth1"]
dip = "192.0.2.2/25,2001:db8::2"
gateway = "192.0.2.1,2001:db8::1"
[timeouts]
udp = 30
[settings]
conn_reuse_mode = 2
"net.ipv4.vs.sloppy_tcp" = 1
[[services]]
service = "tcp:192.0.2.10:80"
scheduler = "sh"
flags = ["sh-port"]
persistent = 300
netmask = "255.255.255.0"
[[services.servers]]
server = "10.0.0.11:8080"
method = "nat"
weight = 2
upper = 9
lower = 4
[[services.servers]]
server = "10.0.0.12"
method = "tun"
tunnel = "gue"
tunnel_port = 6080
tunnel_checksum = "remote"
[[services]]
service = "mark:5"
[[services]]
service = "mark6:5"
[[services]]
service = "udp:[2001:db8::10]:53"
persistent = 60
netmask = "64"
[[services.servers]]
server = "[2001:db8::b]:5353"
method = "nat"
"""


def faults_of(text):
    with pytest.raises(UsageError) as caught:
        file.read_text(text, "f")
    return [line.removeprefix("f: ") for line in str(caught.value).splitlines()]


def test_a_whole_file_is_read():
    stated = file.read_text(WHOLE, "f")
    assert stated.place.interfaces == ["eth0", "eth1"]
    assert stated.dips == {address_of("192.0.2.2"): 25, address_of("2001:db8::2"): 64}
    assert stated.gateways == [address_of("192.0.2.1"), address_of("2001:db8::1")]
    assert stated.timeouts == Timeouts(udp=30)
    assert stated.settings == {"conn_reuse_mode": 2, "net.ipv4.vs.sloppy_tcp": 1}
    assert len(stated.marks) == 2
    web, mark, mark6, names = stated.services.values()
    assert mark.key == marked(5)
    assert mark6.key == marked(5, 6)
    assert (str(names.key), names.terms.netmask) == ("UDP [2001:db8::10]:53", 64)
    assert list(map(str, names.servers)) == ["[2001:db8::b]:5353"]
    assert (web.terms.scheduler, web.terms.flags, web.terms.persistent) == ("sh", 0x11, 300)
    one, other = web.servers.values()
    assert (one.method, one.weight, one.upper, one.lower) == (0, 2, 9, 4)
    assert other.key.port == 80
    assert (other.tunnel_type, other.tunnel_port, other.tunnel_flags) == (1, 6080, 2)


def test_every_fault_is_named_with_its_place_and_what_to_say():
    told = faults_of("""
marks = ["x"]
colour = "red"
[director]
interfaces = "eth0"
connections = 0
[settings]
drop_entry = 9
nonsense = 1
sloppy_tcp = true
[timeouts]
tcp = -1
[[services]]
service = "tcp:192.0.2.10:80"
flags = ["sh-port", 3]
[[services.servers]]
server = "10.0.0.11:8080"
weight = "heavy"
method = "nut"
[[services.servers]]
weight = 1
[[services]]
service = "tcp:192.0.2.10:80"
one_packet = true
[[services.servers]]
server = "224.0.0.1"
[[services.servers]]
server = "10.0.0.1"
lower = 2
tunnel = "gre"
[[services]]
service = "icmp:1.2.3.4:5"
[[services]]
service = "udp:192.0.2.10:0"
netmask = "wide"
""")
    places = [line.partition(": ")[0] for line in told]
    assert sorted(places) == sorted(
        [
            "colour",
            "director.connections",
            "director.interfaces",
            "marks[0]",
            "services[0].flags[1]",
            "services[0].servers[0].method",
            "services[0].servers[0].server",
            "services[0].servers[0].weight",
            "services[0].servers[1].server",
            "services[1].one_packet",
            "services[1].servers[0].server",
            "services[1].servers[1].lower",
            "services[1].servers[1].method",
            "services[1].service",
            "services[2].service",
            "services[3].netmask",
            "services[3].service",
            "settings.drop_entry",
            "settings.nonsense",
            "settings.sloppy_tcp",
            "timeouts.tcp",
        ]
    )
    text = "\n".join(told)
    assert "servers[0].method: give one of nat, dr, tun, l3dsr, fullnat, not 'nut'" in text
    assert "services[0].servers[0].weight: give int, not 'heavy'" in text
    assert "services[0].servers[1].server: it is missing" in text
    assert "colour: there is no such field" in text


def test_things_in_lists_keep_their_numbers_when_one_before_is_nothing():
    told = faults_of('services = [3, { service = "tcp:1.2.3.4:80", weight = 1 }]')
    assert "services[0]: give object, not 3" in told
    assert "services[1].weight: there is no such field" in told


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("x = [", "Invalid value"),
        ("[director]", "interfaces"),
        ("[director]\ntap = 't'\ntun = 'u'", "one of"),
        ("[director]\ninterfaces = ['a', 'a']", "twice"),
        ("[director]\ntap = 't'\ndip = '1.2.x'", "not an IP address"),
        ("[director]\ntap = 't'\ndip = '1.2.3.4/40'", "prefix"),
        ("[director]\ntap = 't'\ngateway = 'home'", "not an IP address"),
        ("[director]\ntap = 't'\ngateway = '1.2.3.4,1.2.3.5'", "more than one address of a family"),
        (
            "[[services]]\nservice = 'tcp:[2001:db8::1]:80'\n"
            "[[services.servers]]\nserver = '10.0.0.1:80'",
            "other kind of IP",
        ),
        (
            "[director]\ntun = 't'\n[[services]]\nservice = 'tcp:1.2.3.4:80'\n"
            "[[services.servers]]\nserver = '1.1.1.1'",
            "no link layer",
        ),
        (
            "[director]\ntap = 't'\n[[services]]\nservice = 'tcp:1.2.3.4:80'\n"
            "[[services.servers]]\nserver = '1.1.1.1'\nmethod = 'tun'",
            "source address",
        ),
        (
            "[director]\ntap = 't'\ndip = '1.2.3.4'\n[[services]]\nservice = 'tcp:1.2.3.4:80'\n"
            "[[services.servers]]\nserver = '[2001:db8::1]'\nmethod = 'tun'",
            "give one of IPv6",
        ),
        ("[director]\ninterfaces = [" + ", ".join(f"'e{n}'" for n in range(17)) + "]", "16"),
    ],
)
def test_what_cannot_work_is_refused(text, told):
    assert told in "\n".join(faults_of(text))


def test_a_file_that_is_not_there_is_named(tmp_path):
    with pytest.raises(UsageError, match="missing"):
        file.read(str(tmp_path / "missing"))
    path = tmp_path / "binary"
    path.write_bytes(b"\xff\xfe")
    with pytest.raises(UsageError, match="not text"):
        file.read(str(path))


def config_of(stated):
    documents = [services.document_of(one) for one in stated.services.values()]
    return schema.Config(documents, schema.Timeouts(*stated.timeouts), stated.place)


def test_a_file_that_is_written_says_the_same():
    stated = file.read_text(WHOLE, "f")
    again = file.read_text(file.text_of(config_of(stated)), "f")
    assert again.services == stated.services
    assert again.timeouts == stated.timeouts
    assert again.place == stated.place


def test_what_is_as_by_default_goes_unsaid():
    text = file.text_of(schema.Config([schema.Service("tcp:192.0.2.10:80")]))
    assert text == '[[services]]\nservice = "tcp:192.0.2.10:80"\n'


WORDS = (
    *("services", "servers", "service", "server", "weight", "flags", "timeouts", "tcp"),
    *("director", "interfaces", "settings", "marks", "a.b", "é"),
)
value = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(max_size=8) | st.floats(),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(
            st.sampled_from(
                [
                    "services",
                    "servers",
                    "service",
                    "server",
                    "director",
                    "timeouts",
                    "settings",
                    "marks",
                    "weight",
                    "tcp",
                    "interfaces",
                    "flags",
                    "a.b",
                    "é",
                ]
            ),
            inner,
            max_size=4,
        )
    ),
    max_leaves=20,
)


@examples(200)
@given(value)
def test_no_document_whatever_stops_the_checking(data):
    document, faults = checking.convert(data, schema.Config)
    services.read(document.services)
    assert isinstance(document, schema.Config)
    assert faults or document is not None


@examples(100)
@given(st.text(max_size=60) | st.just(WHOLE).map(lambda text: text.replace("80", "8o")))
def test_no_text_whatever_is_more_than_refused(text):
    with contextlib.suppress(UsageError):
        assert file.read_text(text, "f").place


def test_an_address_of_the_api_needs_a_secret_that_others_cannot_read(tmp_path):
    secret = tmp_path / "token"
    place = "[director]\ninterfaces = ['eth0']\napi = '{}'\ntoken_file = '{}'\n"
    assert "token_file" in "".join(faults_of("[director]\ninterfaces=['e']\napi = '127.0.0.1:1'"))
    for address, told in (
        ("localhost:1", "IP addr"),
        ("1.2.3.4:x", "no port"),
        ("1.2.3.4", "IP addr"),
    ):
        assert told in "".join(faults_of(place.format(address, secret)))
    text = place.format("127.0.0.1:8090", secret)
    assert "No such file" in "".join(faults_of(text))
    secret.write_text("x" * 32)
    secret.chmod(0o640)
    assert "others can read it" in "".join(faults_of(text))
    secret.chmod(0o600)
    assert file.read_text(text, "f").token == "x" * 32
    secret.write_text("short")
    assert "characters" in "".join(faults_of(text))
    secret.write_bytes(b"\xff" * 40)
    assert "not ASCII" in "".join(faults_of(text))


@pytest.mark.parametrize(
    "text",
    [
        f"[settings]\nconn_reuse_mode = 0x{'f' * 5_000}",
        f"[director]\nconnections = 0x{'f' * 5_000}",
        f"x = {'9' * 5_000}",
        f"x = {'[' * 5_000}",
        '"x - at `$.foo`" = 1',
        '"a\\nb" = 1',
        "\n".join(f"x{n} = 1" for n in range(150)),
    ],
)
def test_what_is_odd_or_too_much_is_refused_in_words(text):
    assert all(line and len(line) < 300 for line in faults_of(text))


@pytest.mark.parametrize("kind", [schema.Service, schema.Server, schema.Table, schema.Config])
def test_a_hundred_faults_are_told_and_that_there_are_more(kind):
    document, faults = checking.convert({f"x{n}": n for n in range(150)}, kind)
    assert isinstance(document, kind)
    assert len(faults) == 101
