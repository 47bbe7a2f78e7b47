"""What the report shows: texts, notes and sounds as well as pictures."""

import numpy as np

from tests.tunes import TUNES
from worker.evaluation.exhibits import TEXT_CHARACTERS, text_exhibits
from worker.evaluation.report.text_sheet import LEADING, MARGIN, SIDE, text_sheet
from worker.evaluation.runs import longest_runs
from worker.evaluation.writings import Writings, words_of
from worker.media.samples.wav import read_samples

TRAINING = [
    "the quick brown fox jumps over the lazy dog and runs away",
    "a rose is a rose is a rose, said the poet to the gardener",
]


def writings(made, real, training=TRAINING):
    words = [[words_of(text) for text in texts] for texts in (made, real)]
    return Writings(made, real, *words, real, False, real, training)


def test_the_longest_run_of_training_words_is_found_with_its_passage():
    made = [
        "nothing that is known",
        "yes the quick brown fox jumps over a wall",
        "he said the poet to the gardener at last",
    ]
    [first, second] = longest_runs(list(map(words_of, made)), TRAINING, most=5)
    assert (first.sample, first.words) == (1, 6)
    assert first.passage == "the quick brown fox jumps over the lazy dog"
    assert (second.sample, second.words) == (2, 6)
    assert "said the poet to the gardener" in second.passage
    assert longest_runs(list(map(words_of, made)), TRAINING, most=1) == [first]
    assert longest_runs([["a"]], [], most=3) == longest_runs([[]], ["a b"], most=3) == []


def test_a_run_is_counted_along_one_passage_only():
    """Words that are in training here and there are no copy."""
    made = [words_of("the quick brown fox said the poet to jumps over the lazy")]
    [run] = longest_runs(made, TRAINING, most=1)
    assert run.words == 4


def test_copied_texts_are_shown_beside_the_passage():
    shown = text_exhibits(writings([TRAINING[0], "something else"], ["real one", "two"]), [])
    assert [each.title for each in shown] == ["Made", "Held out", "Nearest to training data"]
    (heading, text), (_, passage) = shown[2].texts
    assert heading == "sample 0: 12 words in a row"
    assert text == passage == TRAINING[0]
    fresh = text_exhibits(writings(["entirely new"], ["real"]), ["Write!"])
    assert [each.title for each in fresh] == ["Made", "Held out"]
    assert fresh[0].texts[0] == ("to: Write!", "entirely new")
    long = text_exhibits(writings(["x" * 2000], ["y"]), [])
    assert long[0].texts[0][1] == "x" * TEXT_CHARACTERS + "..."


def test_notes_are_drawn_and_to_be_heard():
    tunes = list(TUNES.values())
    made, held_out, *_ = text_exhibits(writings([tunes[0], "no notes"], tunes[:2], []), [])
    for each, sounds in ((made, 1), (held_out, 2)):
        assert each.picture.width > 400
        assert len(each.sounds) == sounds
        samples, rate = read_samples(each.sounds[0][1])
        assert 0 < len(samples) <= 8 * rate
        assert np.abs(samples).max() > 0.5
        assert len(each.texts) == 2
    assert made.sounds[0][0] == "sample 0"


def dark(picture):
    return np.asarray(picture.convert("L")) < 160


def test_texts_are_drawn_line_by_line_within_the_sheet():
    sheet = text_sheet([("sample 0", "one"), ("sample 1", "word " * 200), ("sample 2", "")])
    assert sheet.size == (SIDE, SIDE)
    inked = dark(sheet)
    assert not inked[:, :MARGIN].any()
    assert not inked[:, SIDE - MARGIN :].any()
    rows = np.flatnonzero(inked.any(axis=1))
    assert rows.max() < MARGIN + 12 * LEADING  # a long text is cut to four lines
    full = text_sheet([(f"sample {place}", "W" * 600) for place in range(6)])
    assert not dark(full)[SIDE - MARGIN // 2 :].any()


def test_characters_that_the_font_lacks_are_squares():
    drawn, squares = (text_sheet([("x", text)]) for text in ("猫が好き", "\u25a1" * 4))
    assert drawn.tobytes() == squares.tobytes()
    assert dark(text_sheet([("x", "Привет, κόσμε\tend\r\nnext")])).any()
