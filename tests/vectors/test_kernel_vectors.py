"""What Linux 6.1 did with given frames, and that the director does the same, byte for byte.

``core.json.xz`` holds captures from a real kernel's IPVS (ipvsadm 1.31): commands, frames in,
frames out, listings; ``ipv6.json.xz`` the same of IPv6, random scenarios too; ``cli.json.xz``
commands and what they say; ``ftp.json.xz`` talks that its FTP helper listened to;
``random.json.xz`` random scenarios of ``tools/oracle``: those that once found a difference, and
some that reach what nothing else does.  They are compared by ``tools/conformance.py``, which says
what is masked.
"""

import copy
import pathlib

import pytest

from tests.conftest import BOUNDS_CHECKED, UNCOMPILED
from tools.conformance import check, read
from tools.spoken import SpokenGuest

HERE = pathlib.Path(__file__).parent
VECTORS = read([str(HERE / f"{name}.json.xz") for name in ("core", "ipv6", "cli", "ftp", "random")])
SPOKEN = ("cli_errors_empty", "cli_on_service", "thresholds", "tun_gue", "persist_tcp", "sched_wrr")


def test_there_are_captures_to_compare():
    assert len(VECTORS) == 119 + 12 + 7 + 2 + 4 + 22


@pytest.mark.parametrize("name", VECTORS)
def test_what_leaves_and_what_is_listed_is_what_linux_has(name):
    assert check(VECTORS[name]) == ""


@pytest.mark.skipif(
    UNCOMPILED or BOUNDS_CHECKED, reason="once is enough: compiled, as users run it"
)
@pytest.mark.parametrize("name", SPOKEN)
def test_what_is_said_over_the_control_socket_is_what_ipvsadm_says(name):
    assert check(VECTORS[name], SpokenGuest) == ""


def altered(change):
    vector = copy.deepcopy(VECTORS["fwd_nat_tcp_flow"])
    change(vector)
    return check(vector)


def last_out(vector):
    return next(one for one in reversed(vector["events"]) if one["dir"] == "out")


class TestTheComparisonItself:
    def test_a_byte_that_differs_is_named_with_its_field(self):
        def flip(vector):
            event = last_out(vector)
            event["hex"] = event["hex"][:44] + "2a" + event["hex"][46:]

        assert "byte 22 (TTL)" in altered(flip)

    def test_a_frame_more_or_less_is_a_difference(self):
        assert "frames left" in altered(lambda vector: vector["events"].remove(last_out(vector)))

        def repeat(vector):
            event = last_out(vector)
            vector["events"].insert(vector["events"].index(event), event)

        assert "frames left" in altered(repeat)

    def test_another_port_is_a_difference(self):
        def swap(vector):
            last_out(vector)["port"] = "s" if last_out(vector)["port"] == "c" else "c"

        assert "left by" in altered(swap)

    @pytest.mark.parametrize("command", ["ipvsadm -Ln", "ipvsadm -Lnc", "ipvsadm -Ln --stats"])
    def test_a_listing_that_differs_is_one(self, command):
        def change(vector):
            vector["final"][command] = vector["final"][command].replace("10.0.0.11", "10.0.0.12")

        assert command in altered(change)

    def test_an_expiry_more_than_a_second_off_is_one(self):
        def change(vector):
            listed = vector["final"]["cat /proc/net/ip_vs_conn"].splitlines()
            listed[1] = listed[1][:-2] + "17"
            vector["final"]["cat /proc/net/ip_vs_conn"] = "\n".join(listed) + "\n"

        assert "ip_vs_conn" in altered(change)

    def test_what_a_command_says_is_compared(self):
        def change(vector):
            vector["command_results"][0]["stderr"] = "Service already exists\n"

        assert "complains" in altered(change)
