"""Addresses as people write them."""

import pytest

from pylvs.wire.text import address_of, address_text, mac_of, mac_text


def test_addresses_are_read_as_inet_aton_reads_them():
    assert address_of("10.1") == 0x0A000001
    assert address_text(address_of("192.0.2.255")) == "192.0.2.255"


@pytest.mark.parametrize("text", ["", "12345", "300.1.1.1", "a.b.c.d", "1.2.3.4.5"])
def test_what_is_no_address_is_refused(text):
    with pytest.raises(ValueError, match="not an IP address"):
        address_of(text)


def test_a_mac_survives_the_round_trip():
    assert mac_text(mac_of("02:00:00:00:0a:ff")) == "02:00:00:00:0a:ff"


@pytest.mark.parametrize("text", ["", "02:00:00:00:00", "02:00:00:00:00:zz", "020000000000"])
def test_what_is_no_mac_is_refused(text):
    with pytest.raises(ValueError, match=r"."):
        mac_of(text)
