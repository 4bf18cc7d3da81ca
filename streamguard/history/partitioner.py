"""Kafka's default partitioner, which assigns the events of a file to partitions as a topic does."""

from __future__ import annotations

_SEED = 0x9747B28C
_FACTOR = 0x5BD1E995
_WORD = 0xFFFFFFFF


def murmur2(data: bytes) -> int:
    """Kafka's 32-bit hash of a key (MurmurHash 2 with Kafka's seed), unsigned.

    Examples
    --------
    These are the test vectors of Kafka's own tests, in which Java reads the hash as a signed number.

    >>> [murmur2(key) - 2**32 for key in (b"21", b"foobar", b"a-little-bit-longer-string")]
    [-973932308, -790332482, -1486304829]
    >>> murmur2(b"abc")
    479470107
    """
    whole = len(data) & ~3
    h = _SEED ^ len(data)
    for at in range(0, whole, 4):
        k = int.from_bytes(data[at : at + 4], "little") * _FACTOR & _WORD
        k = (k ^ k >> 24) * _FACTOR & _WORD
        h = h * _FACTOR & _WORD ^ k
    if rest := data[whole:]:
        h = (h ^ int.from_bytes(rest, "little")) * _FACTOR & _WORD
    h = (h ^ h >> 13) * _FACTOR & _WORD
    return h ^ h >> 15


def partition_of(key: bytes, partitions: int) -> int:
    """The partition, from 0, that Kafka's default partitioner chooses for a key.

    An empty key is a key like any other: Kafka distributes only records without a key freely.

    Examples
    --------
    >>> partition_of(b"djones", 4), partition_of(b"", 4)
    (3, 1)
    """
    return (murmur2(key) & 0x7FFFFFFF) % partitions
