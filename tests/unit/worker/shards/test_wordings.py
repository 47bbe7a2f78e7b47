"""Texts that share runs of characters."""

import numpy as np
import pytest

from worker.shards import wordings
from worker.shards.wordings import RADIUS, Runs, signature

VERSE = (
    "First Citizen: Before we proceed any further, hear me speak. All: Speak, speak. "
    "First Citizen: You are all resolved rather to die than to famish? All: Resolved. resolved."
)
OTHER = (
    "The quick brown fox jumps over the lazy dog while seventeen wizards quietly brew a potion "
    "of liquid jade under the pale light of a very distant moon, humming songs of old."
)


def difference(one, other):
    return float(np.mean((signature(one) - signature(other)) ** 2))


@pytest.mark.parametrize("text", ["", "a", "abcd", "é" * 60, "\ud800x" * 30, VERSE])
def test_any_text_has_runs_and_a_signature(text):
    assert len(wordings.runs(text, 50)) >= 1
    assert signature(text).shape == (wordings.NUMBERS,)
    assert difference(text, text) == 0


def test_runs_are_equal_where_the_characters_are():
    one, other = wordings.runs("xxhello world", 5), wordings.runs("hello there", 5)
    assert one[2] == other[0]
    assert len(one) == len("xxhello world") - 4


def test_a_word_changed_makes_a_near_duplicate_and_another_text_does_not():
    assert difference(VERSE, VERSE.replace("famish", "starve")) <= RADIUS
    assert difference(VERSE, VERSE.upper()) == 0
    assert difference(VERSE, "  ".join(VERSE.split())) == 0
    assert difference(VERSE, OTHER) > 2 * RADIUS


def test_a_run_of_training_is_found_inside_a_new_text():
    training = Runs([VERSE], characters=len(VERSE))
    assert training.share(f"And then he said: {VERSE[20:90]} and left.") > 0
    assert training.share(VERSE) == 1
    assert training.share(OTHER) == 0
    assert training.share(VERSE[:40] + OTHER) == 0  # a shorter run than counts
    assert Runs([], characters=0).share(VERSE) == 0


def test_of_very_much_training_an_even_share_still_finds_copies(monkeypatch):
    monkeypatch.setattr(wordings, "MOST_RUNS", 50)
    training = Runs([VERSE], characters=len(VERSE) * 2)
    assert len(training._known) < len(wordings.runs(VERSE, 50))
    assert training.share(VERSE) == 1
    assert training.share(OTHER) == 0
