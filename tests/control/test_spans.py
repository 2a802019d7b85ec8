"""Services that span ports and networks, as commands, documents, listings and claims have them."""

import pytest

from pylvs.control import listing
from pylvs.control.changes import Changer
from pylvs.control.config import schema, services
from pylvs.control.ipvsadm import proc, render
from pylvs.control.ipvsadm.rules import parse_line, parse_text
from pylvs.control.keeper import Keeper
from pylvs.control.model import Command, Spans, Table
from pylvs.control.network.claims import Claims, claims_of, elements_of, ruleset
from pylvs.errors import RuleError, UsageError
from pylvs.wire.text import address_of
from tests.world import World

LINES = [
    "-A -t 192.0.2.10:80,443,8000-8999 -s rr",
    "-a -t 192.0.2.10:80,443,8000-8999 -r 10.0.0.11:0 -m -w 1",
    "-a -t 192.0.2.10:80,443,8000-8999 -r 10.0.0.12:8080 -m -w 1",
    "-A -u 198.51.0.0/16:any -s sh -p 300",
    "-a -u 198.51.0.0/16:any -r 10.0.0.11:0 -g -w 2",
    "-A -t [2001:db8:9::/64]:80 -s wlc",
    "-a -t [2001:db8:9::/64]:80 -r [2001:db8:2::b]:80 -i -w 1 --tun-type ipip",
]


def services_of(lines):
    table = Table()
    for command in parse_text(lines, "rules"):
        table.apply(command)
    return table.services


def test_what_is_saved_is_what_was_stated():
    world = World(LINES)
    saved = render.saved(listing.read(world.manager)).splitlines()
    assert sorted(saved) == sorted(LINES)
    assert services_of(saved) == services_of(LINES)


def test_listings_name_all_of_it():
    rows = listing.read(World(LINES).manager)
    table = render.table(rows)
    assert "TCP  192.0.2.10:80,443,8000-8999 rr\n" in table
    assert "UDP  198.51.0.0/16:any sh persistent 300\n" in table
    assert "TCP  [2001:db8:9::/64]:80 wlc\n" in table
    assert "  -> 10.0.0.11:0                  Masq    1 " in table
    assert "TCP  C000020A:0050,01BB,1F40-2327 rr" in proc.services(rows)
    assert "UDP  C6330000/16:0000-FFFF sh" in proc.services(rows)


def test_documents_state_them_too():
    stated = services_of(LINES)
    documents = [services.document_of(one) for one in stated.values()]
    assert [one.service for one in documents] == [
        "tcp:192.0.2.10:80,443,8000-8999",
        "udp:198.51.0.0/16:any",
        "tcp:[2001:db8:9::/64]:80",
    ]
    assert services.read(documents) == (stated, [])


def test_documents_that_overlap_are_refused_with_their_place():
    documents = [schema.Service(f"tcp:10.0.0.0/8:{ports}") for ports in ("80-90", "any", "85")]
    _, faults = services.read(documents)
    assert [str(fault) for fault in faults] == [
        "services[2].service: 'tcp:10.0.0.0/8:85' overlaps with TCP 10.0.0.0/8:80-90"
    ]


@pytest.mark.parametrize(
    "text",
    [
        *(
            "192.0.2.0/33:80",
            "192.0.2.0/x:80",
            "192.0.2.10:90-80",
            "192.0.2.10:80-",
            "192.0.2.10:,",
        ),
        *(
            "192.0.2.10:80,x",
            "192.0.2.10:65536",
            "[2001:db8::/129]:80",
            "[::/0]:80",
            "192.0.2.10:1-2-3",
        ),
        "192.0.2.10:" + ",".join(str(port) for port in range(1, 601, 2)),
    ],
)
def test_what_is_no_span_is_refused(text):
    with pytest.raises(RuleError, match="illegal virtual server"):
        parse_line(["-A", "-t", text, "-s", "rr"])
    with pytest.raises(UsageError):
        services.service_key(f"tcp:{text}")


def test_port_0_of_an_address_is_linuxs_and_needs_persistence():
    line = ["-A", "-t", "192.0.2.10:0", "-s", "rr"]
    with pytest.raises(RuleError, match="Zero port"):
        parse_line(line)
    assert not parse_line([*line, "-p"]).service.spans
    assert parse_line(["-A", "-t", "192.0.2.10:any", "-s", "rr"]).service.spans


class Recorder:
    """In the place of nftables."""

    def __init__(self):
        self.texts = []

    def run(self, text):
        self.texts.append(text)


def elements(lines, local=()):
    claimed = set()
    for service in services_of(lines).values():
        claimed |= claims_of(service, frozenset(map(address_of, local)))
    return {element for claim in claimed for element in elements_of(claim)}


def test_what_they_claim_of_the_host():
    claimed = elements(LINES)
    assert ("own", "192.0.2.10") in claimed
    assert ("spans_32", "tcp . 192.0.2.10 . 8000-8999") in claimed
    assert ("any_server", "tcp . 10.0.0.11") in claimed
    assert ("servers", "tcp . 10.0.0.12 . 8080") in claimed
    assert ("all_ports_16", "udp . 198.51.0.0") in claimed
    assert ("networks_16", "198.51.0.0") in claimed
    assert ("spans6_64", "tcp . 2001:db8:9:: . 80-80") in claimed
    assert ("networks6_64", "2001:db8:9::") in claimed
    assert not any(name.startswith("own") and "198.51" in text for name, text in claimed)
    text = ruleset(["eth0"], claimed)
    question = "ip daddr != @local meta l4proto . ip daddr & 255.255.0.0 @all_ports_16 drop"
    assert f"add rule netdev pylvs spans {question}" in text
    question = "meta l4proto . ip daddr . th dport @spans_32 drop"
    for table in ("netdev", "ip"):
        assert f"add rule {table} pylvs spans {question}" in text
    assert (
        "add rule netdev pylvs networks6 ip6 daddr & ffff:ffff:ffff:ffff:: @networks6_64 drop"
        in text
    )


def test_a_prefix_gets_its_sets_with_its_first_service_and_keeps_them():
    claims = Claims(nftables=Recorder())
    claims.replace(["eth0"], {}, frozenset())
    one, other = (services_of([f"-A -t 10.{n}.0.0/16:80 -s rr"]) for n in (1, 2))
    for stated in (one, other):
        claims.update((key, claims_of(service, frozenset())) for key, service in stated.items())
    first, second = claims._nftables.texts[-2:]
    assert "add set netdev pylvs spans_16" in first
    assert "add set" not in second
    assert "add element netdev pylvs spans_16 { tcp . 10.2.0.0 . 80-80 }" in second
    assert " ip pylvs" not in second
    claims.update((key, frozenset()) for key in (*one, *other))
    assert "delete element netdev pylvs networks_16" in claims._nftables.texts[-1]
    assert not claims._held


def test_what_takes_anothers_place_is_not_claimed_beside_it():
    """A set of ranges takes none that overlap: the old one's claims go first."""
    world = World(["-A -t 10.0.0.0/8:80-90 -s rr"])

    class Place:
        manager = world.manager

    keeper, spans = Keeper(Place()), Spans()
    lines = ("10.0.0.0/8:85-95", "10.0.0.0/8:96-99", "10.0.0.0/8:99-120", "10.0.0.0/9:85-95")
    keys = [parse_line(f"-A -t {where} -s rr".split()).service for where in lines]
    assert [keeper._may_claim(key, spans) for key in keys] == [False, True, False, True]


def test_a_table_with_other_ranges_takes_the_place_of_one_whole():
    world = World(["-A -t 10.0.0.0/8:80-90 -s rr", "-a -t 10.0.0.0/8:80-90 -r 10.0.0.11 -g"])
    changer = Changer(world.manager)
    stated = services_of(["-A -t 10.0.0.0/8:85-95 -s rr"])
    done = changer.replace(stated)
    assert [one.verb for one in done] == ["D", "A"]
    with pytest.raises(UsageError, match="Memory"):
        _without_pages(world, changer)
    assert list(world.manager.table.services) == list(stated)


def _without_pages(world, changer):
    """Have a change fail half-way: there are no pages left for the second service."""
    wanted = services_of([f"-A -t 10.0.0.{n}:85-95 -s rr" for n in (1, 2)])
    state = world.tables.director[0]
    taken, state["pages_seen"] = int(state["pages_seen"]), len(world.tables.port_pages) - 1
    try:
        changer.replace(wanted)
    finally:
        state["pages_seen"] = taken


def test_a_number_is_kept_for_who_returns():
    world = World(LINES)
    manager = world.manager
    key = next(iter(manager.table.services))
    before = manager._span_of(key)
    manager.apply(Command("D", key))
    world.rule(LINES[0])
    assert manager._span_of(key) == before
