import json

import numpy as np
import pytest

from db.errors import BadInput
from worker.data.dataset import LocalDataset
from worker.feeds.tokenizer import train_tokenizer
from worker.feeds.tokens import Texts, TokenFeed, document_segments

TRAIN, VALIDATION = 0, 1
LETTERS = "abcdefghijklmnopqrstuvwxyz"


def dataset(folder, rows):
    lines = [json.dumps(row, ensure_ascii=False) for row in rows]
    (folder / "documents.jsonl").write_text("\n".join(lines) + "\n", "utf-8")
    return LocalDataset(folder)


def plain(data):
    """The ids of windows, whether predicted or not."""
    return np.maximum(data, ~data)


@pytest.fixture
def letters(tmp_path):
    """A training text without line breaks, and a validation text."""
    rows = [
        {"split": TRAIN, "text": LETTERS * 20},
        {"split": VALIDATION, "text": LETTERS[::-1] * 3},
    ]
    return dataset(tmp_path, rows), train_tokenizer([LETTERS], kind="characters")


def feed(letters, **given):
    settings = {"context": 8, "batch_size": 4, "seed": 7} | given
    return TokenFeed(*letters, **settings)


def test_a_batch_is_a_function_of_seed_and_step_alone(letters):
    first = [feed(letters).train(step)[0] for step in (5, 0, 99)]
    again = feed(letters)

    for step, batch in zip((99, 5, 0), (first[2], first[0], first[1]), strict=True):
        assert (again.train(step)[0] == batch).all()
    assert (feed(letters, seed=8).train(5)[0] != first[0]).any()


def test_windows_are_pieces_of_the_text(letters):
    tokenizer = letters[1]
    data, labels = feed(letters).train(3)

    assert labels is None
    assert data.shape == (4, 9)
    assert data.dtype == np.int64
    for row in data:
        assert tokenizer.decode(row) in LETTERS * 20


def test_an_epoch_reads_each_window_once(letters):
    one = feed(letters, batch_size=1)

    starts = [bytes(one.train(step)[0].astype(np.uint8)) for step in range(one.train_count)]
    again = [
        bytes(one.train(step)[0].astype(np.uint8))
        for step in range(one.train_count, 2 * one.train_count)
    ]

    assert one.train_count == 64
    assert starts != again, "another epoch has another order"


def test_validation_predicts_every_token_of_the_split_once_in_order(letters):
    tokenizer = letters[1]

    batches = [data for data, _ in feed(letters).validation()]
    predicted = np.concatenate([data[:, 1:].ravel() for data in batches])

    assert tokenizer.decode(predicted[predicted >= 0]) == LETTERS[::-1] * 3
    assert (predicted >= 0).sum() == 3 * 26 + 1, "and the end of the document"


def test_validation_is_the_same_each_time(letters):
    one = feed(letters)

    for (first, _), (again, _) in zip(one.validation(), one.validation(), strict=True):
        assert (first == again).all()


def test_no_validation_text_makes_no_validation_batch(tmp_path):
    data = dataset(tmp_path, [{"split": TRAIN, "text": LETTERS}])
    tokenizer = train_tokenizer([LETTERS], kind="characters")

    assert list(TokenFeed(data, tokenizer, context=8, batch_size=2, seed=0).validation()) == []


def test_a_window_at_a_lines_start_begins_with_the_end_token(tmp_path):
    text = "first line\nsecond line\n我们。他们。\n" * 50
    tokenizer = train_tokenizer([text], kind="characters")
    data = dataset(tmp_path, [{"split": TRAIN, "text": text}])
    one = TokenFeed(data, tokenizer, context=8, batch_size=64, seed=0)

    batch, _ = one.train(0)
    begun = [tokenizer.decode(row) for row in batch if row[0] == tokenizer.end]

    assert begun
    assert all(("\n" + text_begun in text or "。" + text_begun in text) for text_begun in begun)
    assert not any(tokenizer.decode(row[:1]) in {"\n", "。"} for row in batch)


def test_a_text_shorter_than_the_context_is_padded_and_the_padding_not_predicted(tmp_path):
    tokenizer = train_tokenizer(["short"], kind="characters")
    data = dataset(tmp_path, [{"split": TRAIN, "text": "short"}])

    batch, _ = TokenFeed(data, tokenizer, context=16, batch_size=3, seed=0).train(0)

    assert batch.shape == (3, 17)
    assert all(tokenizer.decode(row[row >= 0]) == "short" for row in batch)
    assert (batch[:, 7:] == ~tokenizer.end).all()


def test_prompts_are_read_but_not_predicted(tmp_path):
    rows = [{"split": TRAIN, "prompt": "2+2=", "completion": "4"}]
    tokenizer = train_tokenizer(["2+2=4"], kind="characters")

    batch, _ = TokenFeed(dataset(tmp_path, rows), tokenizer, context=8, batch_size=1, seed=0).train(
        0
    )

    assert tokenizer.decode(batch[batch >= 0]) == "4"
    assert tokenizer.decode(plain(batch)[0]) == "2+2=4"


def test_only_the_assistants_words_are_predicted(tmp_path):
    messages = [{"role": "user", "content": "hi"}, {"role": "assistant", "content": "yes"}]
    rows = [{"split": TRAIN, "messages": messages}]
    data = dataset(tmp_path, rows)
    tokenizer = train_tokenizer(Texts(data, TRAIN), kind="characters")

    batch, _ = TokenFeed(data, tokenizer, context=48, batch_size=1, seed=0).train(0)

    assert list(Texts(data, TRAIN)) == ["user: hi\n\nassistant: yes\n\n"]
    assert tokenizer.decode(batch[batch >= 0]) == "yes\n\n"


def test_tools_their_calls_and_messages_of_no_weight_are_written_out():
    call = {"type": "function", "function": {"name": "f", "arguments": {}}}
    messages = [
        {"role": "assistant", "content": "no", "weight": 0},
        {"role": "assistant", "content": "", "tool_calls": [call]},
    ]
    segments = document_segments({"messages": messages, "tools": [call]})
    assert "".join(text for text, _ in segments) == (
        'tools: [{"type": "function", "function": {"name": "f", "arguments": {}}}]\n\n'
        'assistant: no\n\nassistant: {"name": "f", "arguments": {}}\n\n'
    )
    assert [text for text, learnt in segments if learnt] == ['{"name": "f", "arguments": {}}\n\n']


def test_tokens_are_encoded_once_and_read_from_a_file_afterwards(letters):
    data, _ = letters
    feed(letters)
    (data.folder / "documents.jsonl").unlink()

    assert feed(letters).train_count == 64
    assert sorted(path.suffix for path in data.folder.iterdir()) == [".npy", ".npy"]


def test_another_tokenizer_has_its_own_tokens(letters):
    data, _ = letters
    other = train_tokenizer([LETTERS * 9], kind="bpe")

    assert feed((data, other)).train_count < feed(letters).train_count


def test_a_text_of_nothing_is_refused(tmp_path):
    data = dataset(tmp_path, [{"split": TRAIN, "text": ""}])

    with pytest.raises(BadInput, match="holds only 1 tokens"):
        TokenFeed(data, train_tokenizer(["a"], kind="characters"), context=8, batch_size=1, seed=0)
