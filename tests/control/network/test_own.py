"""The director's own addresses, while services come and go, some at a time."""

from collections import Counter

from hypothesis import given
from hypothesis import strategies as st

from pylvs.control.model import ServiceKey
from pylvs.control.network.own import OwnAddresses
from pylvs.engine.director import Director
from pylvs.wire.text import address_of, family_of, joined
from tests.conftest import examples

NOBODYS = 0  # a firewall mark's
DIP = address_of("10.0.0.5")
HOSTS = address_of("10.0.0.9")
VIPS = [DIP, HOSTS, *map(address_of, ("10.0.0.1", "192.0.2.1", "2001:db8::1", "2001:db8::2"))]
KEYS = st.builds(
    lambda address, port: ServiceKey(family_of(address), 6, address, port),
    st.sampled_from([NOBODYS, *VIPS]),
    st.integers(1, 3),
)
SOME = st.lists(KEYS, max_size=6)


@examples(100)
@given(batches=st.lists(st.tuples(SOME, SOME), max_size=6))
def test_each_services_address_is_there_once_in_order_and_announced_once(batches):
    director = Director()
    table, own = director.tables.own, OwnAddresses(director)
    own.stations = frozenset([DIP])
    own.set_local(frozenset([HOSTS]))
    services: Counter[ServiceKey] = Counter()
    for added, wanted_gone in batches:
        own.follow(added, [])
        services.update(added)
        table["announced"][: used(director)] = 1
        removed = list((Counter(wanted_gone) & services).elements())
        own.follow([], removed)
        services -= Counter(removed)
        rows = table[: used(director)]
        pairs = rows[["address_high", "address_low"]].tolist()
        addresses = [joined(*pair) for pair in pairs]
        assert pairs == sorted(pairs)
        assert sorted(addresses) == sorted({key.vip for key in services if key.vip} | {DIP})
        assert (rows["announced"] == 1).all()
        assert (rows["answers_arp"] == [address != HOSTS for address in addresses]).all()
        assert not table["announced"][len(rows) : len(rows) + 8].any()


def used(director):
    return int(director.tables.director[0]["own_count"])
