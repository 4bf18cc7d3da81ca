"""Addresses and places in the spellings of common logs."""

from __future__ import annotations

import ipaddress
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from streamguard.events import address, place
from streamguard.events import indicators as flag
from streamguard.events.address import ADDRESS
from streamguard.events.columns import Columns, columns
from streamguard.events.countries import CODE_OF, CODES
from streamguard.events.event import parse
from streamguard.events.place import PLACE
from tests.streams import START, event


def of(**fields: Any) -> Columns:
    events, _, refused, _ = parse([event(START, **{"user": "ann", "kind": "login", **fields})])
    assert not refused
    return columns(events)


@pytest.mark.parametrize(
    "spelled",
    [
        "192.0.2.10", "192.0.2.10:31367", " 192.0.2.10 ", "::ffff:192.0.2.10", "::FFFF:192.0.2.10", "::ffff:c000:20a",
        "[::ffff:192.0.2.10]:443", "0:0:0:0:0:ffff:c000:020a", "(192.0.2.10)", '"192.0.2.10"', "192.0.2.10#53",
        "192.0.2.10.5353", "192.0.2.10/32", "192.000.002.010", "192.0.2.10, 10.0.0.1", "ipv4:192.0.2.10:80",
        "tcp://192.0.2.10:80", "/192.0.2.10:80", "<192.0.2.10>", "192.0.2.10/24", "unknown, 192.0.2.10",
        "192.0.2.10 10.0.0.1", "192.0.2.10;10.0.0.1", '["192.0.2.10", "10.0.0.1"]', "['192.0.2.10']", "[192.0.2.10]",
        "[192.0.2.10, 10.0.0.1]", "for=192.0.2.10;proto=http", 'for="192.0.2.10:80"', "tcp:192.0.2.10:80",
        "-, 192.0.2.10", "3221225994", "0xC000020A", "host.example (192.0.2.10)", "192.0.2.10 (host.example)",
    ],
)  # fmt: skip
def test_one_ipv4_address_in_many_spellings(spelled: str) -> None:
    assert ADDRESS[spelled] == ("192.0.2.10", 0)
    plain, other = of(source_ip="192.0.2.10"), of(source_ip=spelled)
    assert plain.hashes.tolist() == other.hashes.tolist()
    assert plain.network.tolist() == other.network.tolist()


@pytest.mark.parametrize(
    "spelled",
    [
        "2001:db8:1:2::5", "2001:DB8:1:2::5", "2001:0db8:0001:0002:0000:0000:0000:0005", "[2001:db8:1:2::5]",
        "[2001:db8:1:2::5]:443", "2001:db8:1:2::5%eth0", "[2001:db8:1:2::5%25eth0]:80", "2001:db8:1:2::5/128",
        "2001:db8:1:2::5/64", 'for="[2001:db8:1:2::5]:47011"',
        "2001:db8:1:2:0:0:0:5:443", "ipv6:[2001:db8:1:2::5]:80", "https://[2001:db8:1:2::5]:80",
    ],
)  # fmt: skip
def test_one_ipv6_address_in_many_spellings(spelled: str) -> None:
    assert ADDRESS[spelled] == ("2001:db8:1:2::5", 0)
    other = of(source_ip=spelled)
    assert other.texts[0] == "2001:db8:1:2::5"
    assert other.hashes.tolist() == of(source_ip="2001:db8:1:2::5").hashes.tolist()


def test_network_of_ipv6_is_64_bits() -> None:
    near = ["2001:db8::1", "2001:db8::2:3:4:5", "2001:0db8:0:0:ffff::"]
    far = ["2001:db8:0:1::1", "2001:db8:1::1", "2001:db9::1", "::1", "::2:0:0:0:1"]
    networks = [int(of(source_ip=one).network[0]) for one in near + far]
    assert len(set(networks[:3])) == 1
    assert len(set(networks)) == 1 + len(far)


@pytest.mark.parametrize(
    "spelled",
    [
        "",
        "-",
        " ",
        "unknown",
        "Unknown",
        "N/A",
        "null",
        "None",
        "UNKNOWN",
        "-, -",
        "unknown,",
        "(null)",
        "?",
        ",;",
    ],
)
def test_some_texts_stand_for_no_address(spelled: str) -> None:
    assert ADDRESS[spelled] == ("", 0)
    assert of(source_ip=spelled).hashes[0, 0] == 0
    _, _, refused, _ = parse([event(START, None, source_ip=spelled)])
    assert [one.reason for one in refused] == ["missing_user"]


@pytest.mark.parametrize(
    "spelled",
    [
        "LOCAL",
        "host.example",
        "256.1.1.1",
        "1.2.3",
        "fe80::g",
        ":::",
        "a:b",
        "1.2.3.4:99999999",
        "\0",
        "00:11:22:33:44:55",
        "10:30:00",
        "12345",
        "4294967296",
        "99999999999",
    ],
)
def test_another_text_stays_itself_and_is_not_understood(spelled: str) -> None:
    assert ADDRESS[spelled] == (spelled, flag.ADDRESS_UNKNOWN)
    assert ADDRESS[f" {spelled} "] == (spelled, flag.ADDRESS_UNKNOWN)


@given(st.ip_addresses())
def test_any_address_is_read_as_the_standard_library_reads_it(one: Any) -> None:
    expected = getattr(one, "ipv4_mapped", None) or one
    for spelled in (
        str(one),
        one.exploded,
        str(one).upper(),
        f"[{one}]:1" if one.version == 6 else f"{one}:1",
    ):
        assert ADDRESS[spelled] == (str(expected), 0)


@given(st.text(max_size=60))
def test_canonical_is_stable(text: str) -> None:
    once = address.canonical(text)
    if ADDRESS[text][1] == 0 and once:
        assert str(ipaddress.ip_address(once)) == once
        assert address.canonical(once) == once
    there = place.canonical(text)
    if PLACE[text][1] == 0 and there:
        assert there[:2] in CODES | {"A1", "T1"}


@pytest.mark.parametrize(
    ("spelled", "expected"),
    [
        ("DE-Berlin", "DE-Berlin"), ("de-Berlin", "DE-Berlin"), ("Germany-Berlin", "DE-Berlin"),
        ("Germany - Berlin", "DE-Berlin"), ("Berlin, DE", "DE-Berlin"), ("Berlin, Germany", "DE-Berlin"),
        ("Berlin,Germany", "DE-Berlin"), ("DEU-Berlin", "DE-Berlin"), ("Germany, Berlin", "DE-Berlin"),
        ("DE/Berlin", "DE-Berlin"), ("Unknown, DE", "DE"), ("DE", "DE"), ("de", "DE"), ("germany", "DE"), ("DEU", "DE"),
        ("DE-", "DE"), (" DE ", "DE"), ("US-New York", "US-New York"), ("United States", "US"), ("USA", "US"),
        ("U.S.", "US"),
        ("The Netherlands", "NL"), ("UK-London", "GB-London"), ("Türkiye", "TR"), ("Turkey", "TR"),
        ("Guinea-Bissau", "GW"),
        ("Bosnia & Herzegovina", "BA"), ("Ashburn, Virginia, United States", "US-Ashburn, Virginia"),
        ("DE-Unknown", "DE"), ("DE-?", "DE"), ("DE - N/A", "DE"), ("Unknown-DE", "DE"), ("?-Germany", "DE"),
        ("-Berlin, DE", "DE-Berlin"), ("Côte d'Ivoire", "CI"), ("Russian Federation", "RU"),
        ("South Korea-Seoul", "KR-Seoul"),
    ],
)  # fmt: skip
def test_one_place_in_many_spellings(spelled: str, expected: str) -> None:
    assert PLACE[spelled] == (expected, 0)
    country = of(metadata={"geo_location": expected[:2]})
    assert of(metadata={"geo_location": spelled}).area.tolist() == country.area.tolist()


@pytest.mark.parametrize(
    "spelled",
    [
        "",
        "-",
        "Unknown",
        "N/A",
        "null",
        "-, -",
        "XX",
        "Unknown, Unknown",
        "ZZ",
        "Unknown-Unknown",
        "--",
        "- - -",
        "?",
        "(not set)",
        "XX-Unknown",
        "EU",
        "AP",
        "O1",
        "A2",
    ],
)
def test_some_texts_stand_for_no_place(spelled: str) -> None:
    assert PLACE[spelled] == ("", 0)
    found = of(metadata={"geo_location": spelled})
    assert found.hashes[0, 1] == found.area[0] == 0


def test_sender_that_hides_its_place_is_in_a_place_of_its_own() -> None:
    assert PLACE["Anonymous Proxy"] == PLACE["a1"] == ("A1", 0)
    assert PLACE["T1"] == ("T1", 0)
    assert of(metadata={"geo_location": "T1"}).area[0] not in (0, of(metadata={"geo_location": "A1"}).area[0])


def test_place_without_a_country_has_no_area() -> None:
    found = of(metadata={"geo_location": "Head office"})
    assert found.texts[1] == "Head office"
    assert found.hashes[0, 1] != 0
    assert found.area[0] == 0
    assert found.flags[0] & flag.PLACE_UNKNOWN


def test_table_of_countries() -> None:
    assert len(CODES) == 250
    assert set(CODE_OF.values()) == CODES
    assert all(name == name.strip() and name for name in CODE_OF)


def test_destination_is_canonical_as_well() -> None:
    assert of(destination_ip="[2001:DB8::1]:443").texts[4] == "2001:db8::1"
