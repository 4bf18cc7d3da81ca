"""Dictionary of the texts behind hashes."""

from __future__ import annotations

from streamguard.fold.dimensions import TEXT_CHARACTERS
from streamguard.state.dictionary import PER_PAGE, SIZE, Dictionary, texts_of


def empty() -> Dictionary:
    return Dictionary(lambda keys: [None] * len(keys))


def test_text_is_found_and_survives_saving() -> None:
    words, value = empty(), (7 << 32) + 5
    words.remember(5, value, "10.0.0.1")
    assert words.texts(value) == "10.0.0.1"
    saved = dict(words.changes())
    assert len(saved) == 1
    again = Dictionary(lambda keys: [saved.get(key) for key in keys])
    assert again.texts(value) == "10.0.0.1"
    assert again.hashes[5] == value
    assert again.changes() == []


def test_text_is_found_in_either_place_and_the_later_one_wins() -> None:
    words, value = empty(), (7 << 32) + 5
    words.remember(7, value, "a")
    assert words.texts(value) == "a"
    words.remember(7, (7 << 32) + 6, "b")
    assert words.texts(value) is None
    assert words.texts((7 << 32) + 6) == "b"


def test_only_changes_are_saved_and_long_texts_are_truncated() -> None:
    words = empty()
    words.remember(0, SIZE, "x" * 1000)
    assert words.texts(SIZE) == "x" * TEXT_CHARACTERS
    assert len(words.changes()) == 1
    words.clean()
    assert words.changes() == []
    words.remember(PER_PAGE, PER_PAGE, "y")
    words.remember(PER_PAGE + 1, PER_PAGE + 1, "z")
    assert len(words.changes()) == 1


def test_full_page_is_smaller_than_a_message() -> None:
    words = empty()
    for place in range(PER_PAGE):
        words.remember(place, 2**64 - SIZE + place, "☃" * TEXT_CHARACTERS)
    assert len(words.changes()[0][1]) < 1_000_000


def test_some_texts_are_read_without_the_other_pages() -> None:
    words, first, second = empty(), (7 << 32) + 5, (9 * PER_PAGE << 32) + 3
    words.remember(5, first, "a")
    words.remember(9 * PER_PAGE, second, "b")
    words.remember(40 * PER_PAGE, 40 * PER_PAGE, "c")
    saved, asked = dict(words.changes()), list[bytes]()

    def read(keys: list[bytes]) -> list[bytes | None]:
        asked.extend(keys)
        return [saved.get(key) for key in keys]

    assert texts_of(read, [first, second, 77]) == {first: "a", second: "b"}
    assert len(asked) == len(set(asked)) == 2
    assert texts_of(read, []) == {}
