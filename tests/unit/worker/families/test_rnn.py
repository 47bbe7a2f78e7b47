import json
import math

import numpy as np
import pytest
import torch
from torch.nn import functional

from db.errors import Refused
from worker.data.dataset import LocalDataset
from worker.families import find_family
from worker.families.rnn import FAMILY, RnnParams
from worker.families.rnn.model import NETWORK, Layer
from worker.feeds.tokenizer import Tokenizer
from worker.networks.network import Batch, Clock, Draw, Row
from worker.networks.params import TextSampling
from worker.specs import parse_params

ENGLISH = "".join(
    f"The {animal} sat on the {thing}.\n"
    for animal in ("cat", "dog", "hen", "fox")
    for thing in ("mat", "hat", "box", "log", "car")
)
WORDS = set(ENGLISH.replace(".", "").split())
SMALL = {"width": 48, "embedding": 24, "context": 32, "batch_size": 16, "lr": 1e-2, "dropout": 0.0}


class Trained:
    """A small network and its feed, trained for some steps on a text."""

    def __init__(self, folder, steps, *, text=ENGLISH * 4, **given):
        rows = [{"split": 0, "text": text}, {"split": 1, "text": text[: len(text) // 4]}]
        lines = "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows)
        (folder / "documents.jsonl").write_text(lines, "utf-8")
        self.params = parse_params(RnnParams, SMALL | given, what="rnn")
        self.feed = NETWORK.feed(self.params, LocalDataset(folder), seed=0, files=folder)
        torch.manual_seed(0)
        self.network = NETWORK(self.params, self.feed.shape)
        self.network.load_files(folder)
        self.optimizers = self.network.optimizers()
        self.losses = [self.step(step, step / max(steps, 1)) for step in range(steps)]
        self.network.eval()

    def batch(self, step):
        return Batch(torch.from_numpy(self.feed.train(step)[0]), None, Draw([(0, step)]))

    def step(self, step, progress=0.5):
        clock = Clock(step, progress)
        return float(self.network.train_step(self.batch(step), self.optimizers, clock)["loss"])

    def write(self, prompts, seed=3, **settings):
        """A text for each prompt, in as many slots."""
        sampling = TextSampling(micro_batch=len(prompts), **({"max_tokens": 40} | settings))
        rows = [Row(i, prompt=prompt) for i, prompt in enumerate(prompts)]
        with torch.inference_mode():
            return self.network.sample(rows, Draw([(seed, i) for i in range(len(rows))]), sampling)


@pytest.fixture(scope="module")
def english(tmp_path_factory):
    return Trained(tmp_path_factory.mktemp("english"), 100)


@pytest.fixture(scope="module")
def words(tmp_path_factory):
    """Over words, of which one is rare enough to be unknown."""
    text = ENGLISH * 4 + "The unicorn sat on the mat.\n"
    return Trained(tmp_path_factory.mktemp("words"), 60, text=text, tokenizer="words")


def known(texts):
    """The share of the texts' words, but for each last one, that the training text has."""
    made = [word for text in texts for word in text.replace(".", "").split()[:-1]]
    return np.mean([word in WORDS for word in made])


def test_the_family_is_found_and_says_what_it_takes():
    assert find_family("rnn") is FAMILY
    assert (FAMILY.media, FAMILY.takes_prompts) == ("text", True)
    assert FAMILY.network() is NETWORK


@pytest.mark.parametrize(
    "given",
    [
        {},
        {"cell": "gru"},
        {"tokenizer": "bpe"},
        {"layers": 2, "optimizer": "adamw", "dropout": 0.1},
    ],
    ids=["lstm", "gru", "byte-pairs", "two-layers"],
)
def test_it_learns_to_write_the_text_s_words(tmp_path, given):
    made = Trained(tmp_path, 100, **given)

    assert made.losses[-1] < 0.35 * made.losses[0]
    assert known(made.write([None] * 8, temperature=0.5)) > 0.9


def test_an_lstm_layer_is_the_paper_s_equations():
    torch.manual_seed(0)
    layer, x, state = Layer("lstm", 3, 5), torch.randn(1, 2, 3), torch.randn(2, 2, 5)
    inward, recurrent, b, c = layer.unit.parameters()

    y, after = layer(x, state)

    i, f, g, o = (x[0] @ inward.T + b + state[0] @ recurrent.T + c).chunk(4, 1)
    cell = f.sigmoid() * state[1] + i.sigmoid() * g.tanh()
    hidden = o.sigmoid() * cell.tanh()
    torch.testing.assert_close(after, torch.stack((hidden, cell)))
    torch.testing.assert_close(y[0], hidden)


def test_a_gru_layer_is_the_paper_s_equations():
    torch.manual_seed(0)
    layer, x, state = Layer("gru", 3, 5), torch.randn(1, 2, 3), torch.randn(1, 2, 5)
    inward, recurrent, b, c = layer.unit.parameters()

    y, after = layer(x, state)

    r, z, n = (x[0] @ inward.T + b).chunk(3, 1)
    hr, hz, hn = (state[0] @ recurrent.T + c).chunk(3, 1)
    keep = (z + hz).sigmoid()
    hidden = keep * state[0] + (1 - keep) * (n + (r + hr).sigmoid() * hn).tanh()
    torch.testing.assert_close(after[0], hidden)
    torch.testing.assert_close(y[0], hidden)


@pytest.mark.parametrize("cell", ["lstm", "gru"])
def test_a_new_layer_keeps_most_of_its_state(cell):
    layer = Layer(cell, 3, 64)
    with torch.no_grad():
        for matrix in list(layer.unit.parameters())[:2]:
            matrix.zero_()
    state = torch.ones(layer.parts, 1, 64)

    _, after = layer(torch.zeros(1, 1, 3), state)

    torch.testing.assert_close(after[-1], torch.full((1, 64), 1 / (1 + math.exp(-1))))


@pytest.mark.parametrize("cell", ["lstm", "gru"])
def test_a_carried_state_makes_two_windows_one(tmp_path, cell):
    made = Trained(tmp_path, 0, cell=cell, layers=2)
    ids = made.batch(0).data[:, :-1]
    with torch.inference_mode():
        whole, last = made.network(ids, made.network.start(16))

        first, state = made.network(ids[:, :10], made.network.start(16))
        second, state = made.network(ids[:, 10:], state)

    torch.testing.assert_close(torch.cat((first, second), 1), whole)
    torch.testing.assert_close(state, last)


def test_a_step_goes_on_from_the_state_of_the_last(tmp_path):
    made = Trained(tmp_path, 0)
    made.step(0)
    state = made.network.carried.state
    data = made.batch(1).data
    fresh = (data[:, :1] == Tokenizer.end).T  # (1, B): rows that begin a document
    with torch.inference_mode():
        before = torch.where(fresh[..., None], 0.0, state)
        features, _ = made.network(data[:, :-1], before)
        logits = made.network.logits(features)
        expected = functional.cross_entropy(logits.flatten(0, 1), data[:, 1:].flatten())

    assert fresh.any()
    assert not fresh.all()
    assert made.step(1) == pytest.approx(float(expected), rel=1e-5)


def test_a_checkpoint_holds_the_lanes_state_and_a_version_does_not(tmp_path):
    made = Trained(tmp_path, 2)
    saved = made.network.state_dict()
    other = NETWORK(made.params, made.feed.shape)

    other.load_state_dict(saved)
    made.network.end_training()

    assert torch.equal(other.carried.state, saved["carried.state"])
    assert saved.keys() - made.network.state_dict().keys() == {"carried.state"}
    other.load_state_dict(made.network.state_dict())
    assert other.carried.state is None


def test_the_embedding_is_the_output_too(tmp_path):
    made = Trained(tmp_path, 0, embedding=48)
    vocabulary = made.feed.shape.vocabulary
    matrices = [p.shape for p in made.network.parameters() if p.shape[0] == vocabulary]

    features = torch.randn(2, 48)
    logits = made.network.logits(features)

    assert matrices == [(vocabulary,), (vocabulary, 48)]
    torch.testing.assert_close(logits, features @ made.network.embedding.weight.T)


def test_dropout_is_the_same_all_along_a_window(tmp_path):
    made = Trained(tmp_path, 0, dropout=0.5)
    made.network.train()

    x = made.network._dropout(torch.ones(7, 4, 50))

    assert (x == x[:1]).all()
    assert 60 < (x[0] == 0).sum() < 140
    assert (x[0][x[0] != 0] == 2).all()
    assert (made.network.eval()._dropout(x) == x).all()


@pytest.mark.parametrize("cell", ["lstm", "gru"])
def test_half_precision_learns_and_carries_a_float32_state(tmp_path, cell):
    made = Trained(tmp_path, 0, cell=cell)

    with torch.autocast("cpu", torch.bfloat16):
        losses = [made.step(step) for step in range(12)]

    assert losses[-1] < 0.9 * losses[0]
    assert made.network.carried.state.dtype == torch.float32


def test_reading_token_by_token_gives_the_whole_forward_s_logits(english):
    ids = english.batch(3).data[:, :-1]
    decoder = english.network.decoder(16)
    with torch.inference_mode():
        steps = [decoder.read(column) for column in ids.T]
        features, _ = english.network(ids, english.network.start(16))
        whole = english.network.logits(features)

    torch.testing.assert_close(torch.stack(steps, 1), whole, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("cell", ["lstm", "gru"])
def test_a_slot_that_is_reset_reads_as_a_new_one_whatever_the_others_do(tmp_path, cell):
    made = Trained(tmp_path, 5, cell=cell, layers=2)
    first, second = (made.batch(step).data[:, :9].T for step in (0, 1))
    used, new = made.network.decoder(16), made.network.decoder(16)
    with torch.inference_mode():
        for column in first:
            used.read(column)
        used.reset(5)
        for column in second:
            logits = used.read(column), new.read(column)

    same = (logits[0] == logits[1]).all(1)
    assert same[5]
    assert not same[torch.arange(16) != 5].any()


def test_a_neighbour_s_prompt_changes_nothing(english):
    prompts = ["The ", None, "The cat sat on the mat and would not go away at all ever", "dog"]

    mixed = english.write(prompts)

    for place, prompt in enumerate(prompts):
        assert english.write([prompt] * 4)[place] == mixed[place]


def test_a_prompt_is_continued_and_not_repeated(english):
    text = english.write(["The cat sat on"], temperature=0, stop=["\n"])[0]

    assert text.startswith(" the ")
    assert text.endswith(".")


def test_words_are_written_one_a_token(words):
    texts = words.write([None] * 8, temperature=0.5, max_tokens=20)

    assert all(len(text.split()) > 10 for text in texts)
    assert known(texts) > 0.9


def test_an_unknown_word_in_a_prompt_is_read(words):
    ids = words.network.tokenizer.encode("The hippopotamus sat")

    text = words.write(["The hippopotamus sat"], temperature=0, stop=["\n"])[0]

    assert ids.count(Tokenizer.unknown) == 1
    assert text.startswith(" on the ")


def test_a_prompt_may_end_with_a_blank_or_inside_a_word(words):
    blank, inside = (words.write([prompt], temperature=0)[0] for prompt in ("The cat ", "The c"))

    assert blank.startswith("sat on the ")
    assert inside.startswith("at sat on")


def test_an_unknown_character_in_a_prompt_is_read(english):
    texts = english.write(["鸟 👩 The cat", "\ufffd"])

    assert all(texts)
    assert not any("\ufffd" in text for text in texts)


def test_the_unknown_word_is_learnt_and_never_written(words):
    stream = np.concatenate([words.feed.train(step)[0].ravel() for step in range(5)])
    likely = words.network.bias.detach().clone()
    likely[Tokenizer.unknown] = 100
    usual = words.network.bias.data

    words.network.bias.data = likely
    texts = words.write([None, "The hippopotamus"] * 4)
    words.network.bias.data = usual

    assert (stream == Tokenizer.unknown).any()
    assert all(texts)
    assert not any("\ufffd" in text for text in texts)


def test_validation_is_the_loss_of_one_reading_from_end_to_end(english):
    [data] = [torch.from_numpy(data) for data, _ in english.feed.validation()]
    with torch.inference_mode():
        losses = english.network.validate(Batch(data, None, Draw([(0, 0)])))
        ids = torch.maximum(data, ~data)[:, :-1]
        features, _ = english.network(ids, english.network.start(1))
        chances = english.network.logits(features)[0].log_softmax(1)
        expected = -chances.gather(1, data[0, 1:, None]).mean()

    torch.testing.assert_close(losses["loss"], expected)
    # the document's end is a token and no character
    ratio = data[0, 1:].numel() / (data[0, 1:].numel() - 1)
    assert float(losses["nats_per_character"]) == pytest.approx(float(expected) * ratio)


def test_validation_gives_nats_a_character_for_words(words):
    data = torch.from_numpy(next(words.feed.validation())[0])
    with torch.inference_mode():
        losses = words.network.validate(Batch(data, None, Draw([(0, 0)])))

    assert float(losses["nats_per_character"]) < 0.4 * float(losses["loss"])


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({"celll": "gru"}, "no parameter 'celll' .did you mean 'cell'"),
        ({"cell": "elman"}, "cell: expected 'lstm' or 'gru'"),
        ({"tokenizer": "bytes"}, "tokenizer: expected 'characters', 'words' or 'bpe'"),
        ({"dropout": 1.0}, "dropout: expected less than 1"),
    ],
)
def test_a_wrong_parameter_is_refused_by_name(wrong, message):
    with pytest.raises(Refused, match=message):
        parse_params(RnnParams, wrong, what="rnn")
