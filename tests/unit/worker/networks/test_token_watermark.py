"""The sampler of the text watermark, with decoders whose next token has many likely values."""

import numpy as np
import pytest
import torch

from tests.unit.worker.networks.test_decoding import TOKENIZER, Hashing
from worker.marks.watermarks.tokens import CONTEXT, detect, variant_of, watermark_of
from worker.networks.decoding import Slots
from worker.networks.network import Draw, Row
from worker.networks.params import TextSampling
from worker.networks.token_choice import choose
from worker.networks.token_watermark import Marked, MarkedText, tournament

SECRET, OTHER = b"a secret of a tenant", b"that of another"
ANY = TextSampling(temperature=1, top_p=1)
SEED = 3


def texts(rows, *, slots=4, **settings):
    """What is written for some rows, by index."""
    sampling = TextSampling(micro_batch=slots, **({"max_tokens": 260, "top_p": 1} | settings))
    decoder = Hashing(slots, end=-99.0)
    made = Slots(decoder, TOKENIZER, sampling, torch.device("cpu"))
    steps = made.decode(iter(rows), lambda some: Draw([row.key for row in some]))
    return {row.index: text for step in steps for row, text in step}


def rows(count=6, secret=SECRET):
    return [Row(index, seed=SEED, watermark_key=secret) for index in range(count)]


def test_marked_texts_are_known_by_their_key():
    for index, text in texts(rows(3)).items():
        ids, variant = TOKENIZER.encode(text), variant_of(SEED, index)
        assert detect(ids, SECRET, variant).p_value < 1e-9
        assert detect(ids, SECRET).p_value < 1e-6
        assert detect(ids, OTHER).p_value > 1e-3


def test_texts_without_a_key_are_as_they_were():
    plain = texts(rows(secret=None), max_tokens=100)
    for index, text in plain.items():
        assert detect(TOKENIZER.encode(text), SECRET, variant_of(SEED, index)).p_value > 1e-4
    mixed = [*rows(3), *rows(6, secret=None)[3:]]
    made = texts(mixed, max_tokens=100)
    assert [made[index] for index in range(3, 6)] == [plain[index] for index in range(3, 6)]


def test_a_marked_text_is_the_same_in_any_company():
    few = {"max_tokens": 60}
    together = texts(rows(), **few)
    assert texts(rows()[::-1], **few) == together
    assert texts(rows(), slots=7, **few) == together
    others = texts([*rows(3), *rows(6, secret=OTHER)[3:]], **few)
    assert [others[index] for index in range(3)] == [together[index] for index in range(3)]
    assert others[3] != together[3]
    assert texts(rows()[2:3], **few) == {2: together[2]}


def test_the_likeliest_token_is_not_marked():
    assert texts(rows(), temperature=0) == texts(rows(secret=None), temperature=0)


def test_tournaments_keep_every_probability_over_all_keys():
    chances = torch.softmax(torch.randn(1, 6, generator=torch.manual_seed(0)).double(), -1)
    total = torch.zeros_like(chances)
    for key in range(800):
        marked = Marked(watermark_of(SECRET, key % 256), (key, 1, 2, 3, 4))
        won = tournament(chances, [marked])
        assert float(won.sum()) == pytest.approx(1)
        total += won
    assert (total / 800).numpy() == pytest.approx(chances.numpy(), abs=0.05)


def test_tokens_that_cannot_follow_never_win():
    chances = torch.tensor([[0.5, 0, 0.5, 0], [0.25, 0.25, 0.25, 0.25]]).double()
    marked = Marked(watermark_of(SECRET, 0), (1, 2, 3, 4, 5))
    won = tournament(chances, [marked, None])
    assert won[0, [1, 3]].tolist() == [0, 0]
    assert (won[1] == chances[1]).all()


def test_tournaments_are_those_of_transformers():
    from tests.unit.worker.marks.watermarks.test_tokens import theirs

    scores = torch.randn(1, 40, generator=torch.manual_seed(0)).double()
    processor = theirs(5)
    context = (7, 8, 9, 10, 11)
    ids = torch.tensor([[3]])
    processor(ids, scores)  # its context begins with zeros, and takes one token a call
    for token in context:
        ids = torch.cat((ids, torch.tensor([[token]])), 1)
        expected = processor(ids, scores)

    won = tournament(torch.softmax(scores, -1), [Marked(watermark_of(SECRET, 5), context)])

    assert won.numpy() == pytest.approx(torch.softmax(expected, -1).numpy(), abs=1e-9)


def test_a_context_is_marked_once():
    text = MarkedText(SECRET, seed=SEED, index=0)
    ids = [1, 2, 3, 4, 5, 6]
    assert text.next(ids, CONTEXT - 1) is None  # some are of the prompt
    assert text.next(ids, 6).context == (2, 3, 4, 5, 6)
    assert text.next(ids, 6) is None
    assert MarkedText(None, seed=SEED, index=0).next(ids, 6) is None


def test_keys_do_not_show_in_a_row():
    assert "secret" not in repr(rows(1)[0])


def test_marked_choices_need_the_same_numbers_as_others():
    logits = torch.randn(8, 30, generator=torch.manual_seed(0))
    uniform = torch.rand(8, generator=torch.manual_seed(1))
    marked = [Marked(watermark_of(SECRET, row), (row, 1, 2, 3, 4)) for row in range(8)]
    chosen = choose(logits, uniform, ANY, marked)
    assert (chosen == choose(logits, uniform, ANY, marked)).all()
    assert (chosen != choose(logits, uniform, ANY)).any()
    kept = choose(logits, uniform, TextSampling(temperature=1, top_p=1, top_k=2), marked)
    assert all(int(token) in row.topk(2).indices for token, row in zip(kept, logits, strict=True))
    assert np.isfinite(logits.numpy()).all()
