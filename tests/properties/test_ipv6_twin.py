"""The same packets in IPv4 and in IPv6: the director decides both alike."""

from hypothesis import given
from hypothesis import strategies as st

from tests.conftest import examples
from tests.packets import tcp_frame, udp_frame
from tests.properties.test_against_the_reference import FLAGS, METHODS, SCHEDULERS
from tests.world import CLIENT, CLIENT6, VIP, VIP6, World

ADDRESSES = {4: (CLIENT, VIP, "10.0.0.%d"), 6: (CLIENT6, VIP6, "2001:db8:2::%x")}
listed = st.lists(st.tuples(st.sampled_from(METHODS), st.integers(0, 4)), max_size=4)
steps = st.lists(
    st.tuples(
        st.sampled_from(("tcp", "udp")),
        st.booleans(),
        st.integers(40_000, 40_003),
        st.sampled_from(FLAGS),
        st.integers(0, 3),
        st.sampled_from((0, 0, 0, 1, 61, 130)),
    ),
    max_size=30,
)


def made(version, scheduler, terms, servers):
    _, vip, rip = ADDRESSES[version]
    world = World()
    bracket = "{}" if version == 4 else "[{}]"
    for letter in "tu":
        service = f"-{letter} {bracket.format(vip)}:80"
        world.rule(f"-A {service} -s {scheduler}{terms}")
        for n, (method, weight) in enumerate(servers):
            port = 8080 if method == "-m" else 80
            server = f"{bracket.format(rip % (11 + n))}:{port}"
            world.rule(f"-a {service} -r {server} {method} -w {weight}")
    return world


def send(world, version, step):
    protocol, replies, port, flags, server, wait = step
    client, vip, rip = ADDRESSES[version]
    world.after(wait)
    make = tcp_frame if protocol == "tcp" else udp_frame
    extra = (flags,) if protocol == "tcp" else ()
    if replies:
        frame = make(rip % (11 + server), client, 8080, port, *extra)
        frame = bytes.fromhex("0200000002fe") + frame[6:]
    else:
        frame = make(client, vip, port, 80, *extra)
    return [(row, sent[:6]) for row, sent in world.send(frame, int(replies))]


@examples(100)
@given(st.sampled_from(SCHEDULERS), st.sampled_from(("", " -p 100")), listed, steps)
def test_both_kinds_of_ip_are_decided_alike(scheduler, terms, servers, taken):
    worlds = {version: made(version, scheduler, terms, servers) for version in (4, 6)}
    for step in taken:
        assert send(worlds[4], 4, step) == send(worlds[6], 6, step)
    assert (worlds[4].tables.reasons == worlds[6].tables.reasons).all()
    seen = {
        version: [(port, state) for port, state, _ in world.connections()]
        for version, world in worlds.items()
    }
    assert seen[4] == seen[6]
    fields = ["active", "inactive", "persistent", "connections", "in_packets", "out_packets"]
    assert (worlds[4].tables.servers[fields] == worlds[6].tables.servers[fields]).all()
