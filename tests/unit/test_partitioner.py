"""Keys are assigned to partitions like by Kafka's default partitioner."""

from __future__ import annotations

import pytest

from streamguard.history.partitioner import murmur2, partition_of


@pytest.mark.parametrize(
    ("key", "signed"),
    [
        (b"21", -973932308),
        (b"foobar", -790332482),
        (b"a-little-bit-long-string", -985981536),
        (b"a-little-bit-longer-string", -1486304829),
        (b"lkjh234lh9fiuh90y23oiuhsafujhadof229phr9h19h89h8", -58897971),
        (b"abc", 479470107),
    ],
)
def test_hash_equals_the_values_of_kafkas_own_tests(key: bytes, signed: int) -> None:
    assert murmur2(key) == signed % 2**32


def test_partition_is_the_positive_hash_modulo_the_number_of_partitions() -> None:
    assert partition_of(b"foobar", 10) == (-790332482 & 0x7FFFFFFF) % 10


def test_every_key_has_a_partition_and_all_partitions_are_used() -> None:
    keys = [b"", *(f"user{n}".encode() for n in range(1000)), "Zoë".encode()]
    assert {partition_of(key, 7) for key in keys} == set(range(7))
    assert {partition_of(key, 1) for key in keys} == {0}
