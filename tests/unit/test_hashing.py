"""Hashes of texts."""

from __future__ import annotations

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from streamguard.events.hashing import FILES_KEY, UNKEYED, hash_texts, new_key

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


WORD = 2**64 - 1


def siphash(key: bytes, data: bytes, rounds: int, last_rounds: int) -> int:
    """SipHash, written from the paper."""

    def rotate(x: int, by: int) -> int:
        return (x << by | x >> (64 - by)) & WORD

    k0, k1 = (int.from_bytes(half, "little") for half in (key[:8], key[8:]))
    v = [k0 ^ 0x736F6D6570736575, k1 ^ 0x646F72616E646F6D, k0 ^ 0x6C7967656E657261, k1 ^ 0x7465646279746573]

    def sip_round() -> None:
        v[0] = (v[0] + v[1]) & WORD
        v[1] = rotate(v[1], 13) ^ v[0]
        v[0] = rotate(v[0], 32)
        v[2] = (v[2] + v[3]) & WORD
        v[3] = rotate(v[3], 16) ^ v[2]
        v[0] = (v[0] + v[3]) & WORD
        v[3] = rotate(v[3], 21) ^ v[0]
        v[2] = (v[2] + v[1]) & WORD
        v[1] = rotate(v[1], 17) ^ v[2]
        v[2] = rotate(v[2], 32)

    end = len(data) - len(data) % 8
    words = [int.from_bytes(data[i : i + 8], "little") for i in range(0, end, 8)]
    for word in [*words, int.from_bytes(data[end:], "little") | (len(data) & 255) << 56]:
        v[3] ^= word
        for _ in range(rounds):
            sip_round()
        v[0] ^= word
    v[2] ^= 0xFF
    for _ in range(last_rounds):
        sip_round()
    return v[0] ^ v[1] ^ v[2] ^ v[3]


def test_oracle_computes_the_vector_of_the_paper() -> None:
    assert siphash(bytes(range(16)), bytes(range(15)), 2, 4) == 0xA129CA6149BE45E5


@given(
    st.text(st.characters(exclude_characters="\0"), min_size=1, max_size=300),
    st.binary(min_size=16, max_size=16),
)
def test_hash_is_siphash_1_3_of_the_text(text: str, key: bytes) -> None:
    data = text.encode("utf-8", "surrogatepass")
    assert int(hash_texts([text], 1, key)[0][0, 0]) == siphash(key, data, 1, 3)


def test_another_key_gives_other_hashes_networks_and_areas() -> None:
    texts = ["10.1.2.3", "DE-Berlin"]
    for ours, theirs in zip(hash_texts(texts, 2, new_key()), hash_texts(texts, 2, new_key()), strict=True):
        assert not (ours == theirs).any()


def test_texts_that_collide_without_a_key_differ_under_a_key() -> None:
    resource = 4  # the column for which the first text was computed
    texts = [*[""] * resource, "1scm5j1102kuvpmc.com", *[""] * resource, "windowsupdate.com"]
    planted, usual = hash_texts(texts, resource + 1, UNKEYED)[0][:, resource]
    assert planted == usual
    for key in (FILES_KEY, new_key()):
        planted, usual = hash_texts(texts, resource + 1, key)[0][:, resource]
        assert planted != usual
