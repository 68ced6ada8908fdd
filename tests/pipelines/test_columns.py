"""Columns of texts and numbers behave as tuples of their entries do, and take a few bytes for each."""

from __future__ import annotations

import pickle
import tracemalloc
from collections.abc import Sequence

import numpy as np
import pytest

import pipelines.columns
from pipelines.columns import Numbers, Texts

TEXTS = ("a/b.jpg", "", "é中.jpg", "\udcff\udcfe.jpg", "a b\n\0c", "a/b.jpg", "last")
NUMBERS = (3, 0, 999, 3, 2**40, 7, 1)


@pytest.fixture(autouse=True, params=[8_192, 3])
def chunks(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """Columns of one part, and of several."""
    monkeypatch.setattr(pipelines.columns, "CHUNK", request.param)


@pytest.mark.parametrize("count", range(len(TEXTS) + 1))
def test_a_column_has_its_entries(count: int) -> None:
    texts, numbers = Texts.of(TEXTS[:count]), Numbers(NUMBERS[:count])
    for column, entries in ((texts, TEXTS[:count]), (numbers, NUMBERS[:count])):
        assert len(column) == count
        assert list(column) == [column[place] for place in range(count)] == list(entries)
        assert [column[-1 - place] for place in range(count)] == list(reversed(entries))
        assert column == entries
        assert column != (*entries, entries[0] if entries else 0)
        assert bool(column) == bool(entries)
        with pytest.raises(IndexError):
            column[count]
    assert Texts.of(texts) is texts
    assert all(type(number) is int for number in (*numbers, *numbers[:1], *(numbers[place] for place in range(count))))


@pytest.mark.parametrize(
    "part",
    [slice(2, 5), slice(None), slice(5, 2), slice(-3, None), slice(0, 7, 2), slice(None, None, -1), slice(9, 12)],
)
def test_a_part_of_a_column_is_a_column(part: slice) -> None:
    assert Texts.of(TEXTS)[part] == TEXTS[part]
    assert Numbers(NUMBERS)[part] == NUMBERS[part]
    assert Texts.of(TEXTS)[part][:2] == TEXTS[part][:2]


@pytest.mark.parametrize("places", [(), (0,), (6, 0, 0, 3, 1), (-1, -7, 2), tuple(range(7)) * 2])
def test_entries_are_taken_in_any_order(places: Sequence[int]) -> None:
    assert Texts.of(TEXTS).take(places) == [TEXTS[place] for place in places]
    assert Numbers(NUMBERS).take(np.array(places, np.int64)) == [NUMBERS[place] for place in places]


@pytest.mark.parametrize("place", [7, -8])
def test_an_entry_outside_the_column_can_t_be_taken(place: int) -> None:
    with pytest.raises(IndexError):
        Texts.of(TEXTS).take([0, place])
    with pytest.raises(IndexError):
        Numbers(NUMBERS).take([0, place])


def test_columns_compare_by_their_entries() -> None:
    texts, numbers = Texts.of(TEXTS), Numbers(NUMBERS)
    assert texts == Texts.of(list(TEXTS))
    assert hash(texts) == hash(Texts.of(list(TEXTS)))
    assert texts != Texts.of(("".join(TEXTS), *[""] * 6))
    assert texts != 7
    assert Numbers(np.array([1, 2], np.int32)) == Numbers((1, 2)) == [1, 2]
    assert hash(Numbers(np.array([1, 2], np.int32))) == hash(Numbers((1, 2)))
    assert numbers != numbers[:-1]
    assert (repr(texts[:2]), repr(numbers[:2])) == ("Texts.of(['a/b.jpg', ''])", "Numbers([3, 0])")
    assert pickle.loads(pickle.dumps((texts, numbers))) == (texts, numbers)


def test_what_is_asked_of_numbers() -> None:
    numbers = Numbers(NUMBERS)
    assert (numbers.smallest(), numbers.largest()) == (0, 2**40)
    assert list(numbers.counts().items()) == [(0, 1), (1, 1), (3, 2), (7, 1), (999, 1), (2**40, 1)]
    assert np.array(numbers, dtype=np.int64).tolist() == list(NUMBERS)
    assert b"".join(numbers.with_separator(b",")) == b"3,0,999,3,1099511627776,7,1"
    assert b"".join(Numbers(()).with_separator(b",")) == b""


def test_the_bytes_of_texts_with_something_in_between() -> None:
    expected = "|".join(TEXTS).encode(errors="surrogateescape")
    assert b"".join(Texts.of(TEXTS).with_separator(b"|")) == expected
    assert b"".join(Texts.of(TEXTS)[1:4].with_separator(b"|")) == "|".join(TEXTS[1:4]).encode(errors="surrogateescape")


def test_columns_are_joined() -> None:
    texts = Texts.of(TEXTS)
    assert Texts.joined([texts[:2], texts[2:2], texts[2:6], Texts.of(()), texts[6:]]) == TEXTS
    assert Texts.joined([]) == ()


def test_a_long_column_takes_little_more_than_its_bytes(monkeypatch: pytest.MonkeyPatch) -> None:
    """A tuple of 200,000 such texts takes 15 MB."""
    monkeypatch.setattr(pipelines.columns, "CHUNK", 8_192)
    tracemalloc.start()
    column = Texts.of(f"n01440764/n01440764_{number}.JPEG" for number in range(200_000))
    assert sum(len(text) for text in column) == column.characters.nbytes
    now, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert now < column.characters.nbytes + column.ends.nbytes + 100_000
    assert peak < 3 * now
