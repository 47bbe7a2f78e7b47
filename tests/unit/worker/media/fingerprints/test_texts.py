"""Copies of texts are found by their fingerprints: cut, in another order, some words replaced."""

import json
from functools import cache

import numpy as np
import pytest

from db.errors import BadInput
from tests.marked import SYLLABLES
from worker.data.dataset import Shape
from worker.media import find_medium
from worker.media.fingerprints.bits import fewest_bits

MEDIUM = find_medium("text")
COUNT = 60


def words(draw: np.random.Generator, count: int) -> list[str]:
    return ["".join(draw.choice(SYLLABLES, draw.integers(1, 4))) for _ in range(count)]


@cache
def texts(count: int = COUNT) -> list[str]:
    draw = np.random.default_rng(5)
    return [". ".join(" ".join(words(draw, 12)) for _ in range(12)) for _ in range(count)]


def replaced(text: str) -> str:
    draw, parts = np.random.default_rng(1), text.split(" ")
    for place in range(0, len(parts), 10):
        [parts[place]] = words(draw, 1)
    return " ".join(parts)


WAYS = {
    "the first two thirds": lambda text: text[: len(text) * 2 // 3],
    "sentences in another order": lambda text: ". ".join(text.split(". ")[::-1]),
    "one word in ten replaced": replaced,
    "other case and spacing": lambda text: text.upper().replace(" ", "\n"),
    "inside a sample": lambda text: json.dumps({"index": 1, "seed": 2, "text": text}),
}


@pytest.mark.parametrize("way", WAYS)
def test_a_copy_is_nearest_to_its_sample_and_confirmed(way):
    known = texts()
    rows = MEDIUM.fingerprints(known, Shape("text"))
    for number in range(0, COUNT, 20):
        copy = WAYS[way](known[number]).encode()
        apart = fewest_bits(rows, MEDIUM.fingerprints_of_file(copy))
        assert apart.argmin() == number
        other = known[np.argsort(apart)[1]].encode()
        assert MEDIUM.copy_distance(known[number].encode(), copy) <= 1
        assert MEDIUM.copy_distance(other, copy) > 1


def test_a_text_of_a_few_words_has_no_fingerprint():
    assert not MEDIUM.fingerprints(["a word"], Shape("text")).any()
    assert MEDIUM.fingerprints([], Shape("text")).shape == (0, 2)


@pytest.mark.parametrize("data", [b"", b" \n", b"\xff\xfe", b"a\0b", "é".encode("latin-1")])
def test_what_is_no_text_is_refused(data):
    with pytest.raises(BadInput):
        MEDIUM.fingerprints_of_file(data)


def test_a_long_file_may_be_cut_within_a_character():
    data = "é".encode() * (1 << 20)
    assert MEDIUM.fingerprints_of_file(b"a" + data).shape == (1, 2)


def test_the_text_and_its_record_are_told_apart():
    line = json.dumps(
        {"prompt": 'a "text": b', "text": "the words"}, separators=(",", ":")
    ).encode()
    record, text = MEDIUM.parts(line)
    assert line[text.start : text.stop] == b'"text":"the words"}'
    assert (record.name, text.name) == ("the record", "the text")
    assert [part.name for part in MEDIUM.parts(b"words")] == ["the record"]
