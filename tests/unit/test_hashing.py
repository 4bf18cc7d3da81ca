"""Hashes of texts."""

from __future__ import annotations

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from streamguard.events.hashing import hash_texts

texts = st.text(st.characters(), max_size=30)


def one(*row: str) -> list[int]:
    return [int(h) for h in hash_texts(row, len(row))[0][0]]


def test_empty_text_hashes_to_zero_and_equal_texts_are_equal_within_a_column() -> None:
    assert one("", "", "") == [0, 0, 0]
    assert one("a", "a", "a")[0] == one("a", "", "b")[0]
    assert len(set(one("a", "a", "a"))) == 3


@given(st.lists(texts, min_size=1, max_size=20))
def test_hash_does_not_depend_on_other_texts(many: list[str]) -> None:
    together = hash_texts(many, 1)[0][:, 0].tolist()
    assert together == [one(text)[0] for text in many]


@given(st.lists(st.text(st.characters(exclude_characters="\0\1"), max_size=30), unique=True, max_size=30))
def test_different_texts_have_different_hashes(many: list[str]) -> None:
    assert len(set(hash_texts(many, 1)[0][:, 0].tolist())) == len(many)


def test_nul_shifts_no_columns_and_changes_no_other_rows() -> None:
    whole = hash_texts(["a\0b", "c", "d", "e"], 2)[0]
    assert whole[1].tolist() == one("d", "e")
    assert whole[0, 1] == one("", "c")[1]
    assert whole[0, 0] not in (0, one("a", "")[0], one("ab", "")[0])


def test_lone_surrogates_are_hashed() -> None:
    assert one("\ud800")[0] not in (0, one("\ud801")[0])


def networks(*addresses: str) -> list[int]:
    return [int(h) for h in hash_texts([x for a in addresses for x in (a, "")], 2)[1]]


def test_addresses_of_one_network_share_its_hash() -> None:
    a, b, c = networks("10.1.2.3", "10.1.2.254", "10.1.3.3")
    assert a == b != c
    a, b, c = networks("2001:db8:1:2:3:4:5:6", "2001:db8:1:2:ffff::1", "2001:db8:1:3:3:4:5:6")
    assert a == b != c
    assert networks("") == [0]
    whole, network, _ = hash_texts(["localhost", ""], 2)
    assert whole[0, 0] == network[0]


def test_locations_of_one_area_share_its_hash() -> None:
    area = hash_texts(["", "DE-Berlin", "", "DE-Bonn-Ost", "", "FR-Paris", "", ""], 2)[2]
    assert area[0] == area[1] != area[2]
    assert area[3] == 0


def test_no_rows_give_empty_arrays() -> None:
    whole, network, area = hash_texts([], 7)
    assert whole.shape == (0, 7)
    assert len(network) == len(area) == 0
    assert whole.dtype == np.uint64
