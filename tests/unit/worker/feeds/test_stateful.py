import json
from itertools import pairwise

import numpy as np
import pytest

from db.errors import BadInput
from worker.data.dataset import LocalDataset
from worker.feeds.stateful import HISTORY, WINDOW, StatefulFeed
from worker.feeds.tokenizer import Tokenizer, train_tokenizer

TRAIN, VALIDATION = 0, 1
LETTERS = "abcdefghijklmnopqrstuvwxyz"


def numbered(count):
    """A text in which each place is known by what follows it."""
    return "".join(f"{i:04d}\n" for i in range(count))


def feed(folder, rows, **given):
    lines = [json.dumps(row, ensure_ascii=False) for row in rows]
    (folder / "documents.jsonl").write_text("\n".join(lines) + "\n", "utf-8")
    texts = [row["text"] for row in rows if "text" in row] or [LETTERS]
    tokenizer = train_tokenizer(texts, kind="characters")
    settings = {"context": 8, "batch_size": 3, "seed": 7} | given
    return StatefulFeed(LocalDataset(folder), tokenizer, **settings), tokenizer


def as_text(ids):
    """Ids of numbers as text: 0 the end, 2 the line break, the digits after it."""
    return "".join({0: "\0", 2: "\n"}.get(i, str(i - 3)) for i in ids.ravel().tolist())


@pytest.fixture
def numbers(tmp_path):
    rows = [
        {"split": TRAIN, "text": numbered(200)},
        {"split": VALIDATION, "text": numbered(300)},
    ]
    return lambda **given: feed(tmp_path, rows, **given)[0]


def test_a_window_goes_on_where_the_lane_s_last_one_ended(numbers):
    stream = numbers()
    windows = [stream.train(step)[0] for step in range(stream.epoch_steps)]

    assert windows[0].shape == (3, 9)
    assert windows[0].dtype == np.int64
    for before, after in pairwise(windows):
        assert (before[:, -1] == after[:, 0]).all()


def test_an_epoch_reads_the_whole_text_but_a_remainder(numbers):
    stream = numbers()

    read = np.stack([stream.train(step)[0][:, 1:] for step in range(stream.epoch_steps)], 1)

    texts = [as_text(lane) for lane in read]
    ring = (numbered(200) + "\0") * 2
    assert all(text in ring for text in texts)
    assert sum(len(text) for text in texts) > len(ring) / 2 - 3 * 9
    assert len(set("".join(texts).split("\n")) & set(ring.split("\n"))) > 190


def test_each_epoch_begins_elsewhere(numbers):
    stream = numbers()

    firsts = {
        int(stream.train(epoch * stream.epoch_steps)[0][0, :5] @ 10 ** np.arange(5))
        for epoch in range(6)
    }

    assert len(firsts) == 6


def test_a_batch_is_a_function_of_seed_and_step_alone(numbers):
    first = {step: numbers(batch_size=16).train(step)[0] for step in (5, 0, 99)}
    again = numbers(batch_size=16)

    assert all((again.train(step)[0] == first[step]).all() for step in (99, 5, 0))
    assert (numbers(batch_size=16, seed=8).train(5)[0] != first[5]).any()


def test_one_row_in_sixteen_begins_a_line_as_a_document(numbers):
    stream = numbers(batch_size=48)

    batches = np.stack([stream.train(step)[0] for step in range(20)])
    begun = batches[:, 45:]

    assert (begun[:, :, 0] == Tokenizer.end).all()
    assert (begun[:, :, 5] == 2).all(), "four digits, then the line's end"
    assert len(np.unique(begun[:, :, 1:5].reshape(-1, 4), axis=0)) > 30
    assert (batches[:, :45, 0] == Tokenizer.end).sum() <= 1


def test_a_text_shorter_than_a_batch_is_read_again_and_again(tmp_path):
    stream, tokenizer = feed(tmp_path, [{"split": TRAIN, "text": "abc"}], batch_size=6)

    data, _ = stream.train(3)

    assert stream.epoch_steps == 1
    assert all(tokenizer.decode(row) in "abcabcabcabc" for row in data)


def test_documents_are_parted_by_one_end(tmp_path):
    rows = [{"split": TRAIN, "text": "abcde"}, {"split": TRAIN, "text": "fghij"}]
    stream, _ = feed(tmp_path, rows, batch_size=1, context=24)

    data = stream.train(0)[0][0]

    ends = np.flatnonzero(data == Tokenizer.end)
    assert (np.diff(ends) == 6).all()


def test_prompts_are_read_but_not_predicted(tmp_path):
    rows = [{"split": TRAIN, "prompt": "abc", "completion": "d"}]
    stream, tokenizer = feed(tmp_path, rows, batch_size=1, context=16)

    data = stream.train(0)[0]

    assert set(tokenizer.decode(data[data >= 0])) == {"d"}
    assert set(tokenizer.decode(~data[data < 0])) == set("abc")


def test_validation_predicts_every_token_once_in_order(numbers):
    batches = [data for data, _ in numbers().validation()]

    predicted = np.concatenate([data[:, 1:][data[:, 1:] >= 0] for data in batches])

    assert as_text(predicted) == numbered(300) + "\0"


def test_validation_reads_what_came_before(numbers):
    rows = np.concatenate([data for data, _ in numbers().validation()])

    text = numbered(300)
    assert len(rows) == -(-(len(text) + 1) // WINDOW)
    for row in rows[1:]:
        history = row[: int(np.argmax(row >= 0))]
        assert len(history) == HISTORY + 1
        assert (history < 0).all()
        assert as_text(np.maximum(row, ~row)).rstrip("\0") in text


def test_no_validation_text_makes_no_validation_batch(tmp_path):
    stream, _ = feed(tmp_path, [{"split": TRAIN, "text": LETTERS}])

    assert list(stream.validation()) == []


def test_a_text_of_nothing_is_refused(tmp_path):
    with pytest.raises(BadInput, match="holds only 1 tokens"):
        feed(tmp_path, [{"split": TRAIN, "text": ""}, {"split": VALIDATION, "text": "a"}])
