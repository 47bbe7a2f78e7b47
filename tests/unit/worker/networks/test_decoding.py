"""Slots, with a decoder whose next token is a function of what it has read."""

from itertools import count

import pytest
import torch

from db.errors import NonFinite
from worker.feeds.tokenizer import train_tokenizer
from worker.networks.decoding import YIELD_EVERY, Slots
from worker.networks.network import Draw, Row
from worker.networks.params import TextSampling

TEXT = "the cat sat on the mat and the dog ran to the hat; "
TOKENIZER = train_tokenizer([TEXT], kind="characters")
SIZE = TOKENIZER.size


class Hashing:
    """Logits by a random table, at a hash of the slot's last tokens: two, or all of them."""

    def __init__(self, slots, *, context=None, whole=True, end=0.0):
        self.context, self.whole = context, whole
        self.read_by = [[] for _ in range(slots)]
        self.steps = self.resets = 0
        self.table = torch.randn(997, SIZE, generator=torch.Generator().manual_seed(0))
        self.table[:, TOKENIZER.end] += end

    def reset(self, slot):
        self.read_by[slot] = []
        self.resets += 1

    def read(self, tokens):
        self.steps += 1
        for read, token in zip(self.read_by, tokens.tolist(), strict=True):
            read.append(token)
            assert self.context is None or len(read) <= self.context
        kept = [read if self.whole else read[-2:] for read in self.read_by]
        places = [sum((i + 1) * (t + 7) for i, t in enumerate(read)) % 997 for read in kept]
        return self.table[places].clone()


class Prefilling(Hashing):
    """The same, reading what is known five tokens at a time."""

    prefill_size = 5

    def __init__(self, slots, **given):
        super().__init__(slots, **given)
        self.chunks = 0

    def prefill(self, slot, tokens):
        assert len(tokens) == self.prefill_size
        self.chunks += 1
        self.read_by[slot] += tokens.tolist()


def texts(rows, *, slots=4, kind=Hashing, seed=3, decoder=None, context=None, **settings):
    """What is written for some rows, by index."""
    sampling = TextSampling(micro_batch=slots, **({"max_tokens": 20} | settings))
    decoder = decoder or kind(slots, context=context)
    slots = Slots(decoder, TOKENIZER, sampling, torch.device("cpu"))
    made = slots.decode(iter(rows), lambda rows: Draw([(seed, row.index) for row in rows]))
    return {row.index: text for step in made for row, text in step}


PROMPTS = [None, "the cat sat on the mat and the dog ran", "a", "the dog", "to the hat; the cat"]
ROWS = [Row(index, prompt=PROMPTS[index % 5]) for index in range(23)]


@pytest.mark.parametrize("kind", [Hashing, Prefilling])
def test_a_text_is_the_same_in_any_company(kind):
    together = texts(ROWS, kind=kind)

    assert list(together) != sorted(together)  # the short ones were not waited for
    assert texts(ROWS[::-1], kind=kind) == together
    assert texts(ROWS, slots=7, kind=kind) == together
    for row in ROWS:
        assert texts([row], kind=kind) == {row.index: together[row.index]}


def test_texts_with_prefill_are_those_read_step_by_step():
    assert texts(ROWS, kind=Prefilling) == texts(ROWS)
    assert texts(ROWS, kind=Prefilling, context=9) == texts(ROWS, context=9)


def test_known_tokens_are_prefilled():
    slow, fast = Hashing(1), Prefilling(1)
    prompt = Row(0, prompt=TEXT * 4)
    texts([prompt], decoder=slow, slots=1, max_tokens=1)
    texts([prompt], decoder=fast, slots=1, max_tokens=1)

    assert slow.steps == len(TEXT * 4) + 1
    assert slow.steps == 5 * fast.chunks + fast.steps
    assert fast.steps <= 5


def test_a_slot_that_ends_takes_the_next_row():
    decoder = Hashing(4, end=1.5)
    made = texts([Row(index) for index in range(200)], decoder=decoder, max_tokens=100)

    lengths = [min(len(text) + 1, 100) for _, text in sorted(made.items())]  # with the end
    batches = sum(max(lengths[first : first + 4]) for first in range(0, 200, 4))
    assert decoder.steps < 0.6 * batches
    assert 4 * decoder.steps < 1.1 * sum(lengths) + 400


def test_a_slot_is_reset_for_each_text():
    decoder = Hashing(4)
    texts(ROWS, decoder=decoder)

    assert decoder.resets >= len(ROWS)  # an empty slot is reset now and then, too


def test_a_full_slot_reads_the_last_half_of_its_text_again():
    class Remembering(Hashing):
        seen = ()

        def reset(self, slot):
            self.seen = (*self.seen, self.read_by[slot])
            super().reset(slot)

    decoder = Remembering(1, context=8)
    texts([Row(0, prompt="the cat")], decoder=decoder, slots=1, max_tokens=12)

    first, second = decoder.seen[1:3]
    assert len(first) == len(second) == 8
    assert second[:3] == first[5:]


def test_memory_of_two_tokens_needs_no_more_context_than_that():
    narrow, wide = Hashing(4, context=6, whole=False), Hashing(4, whole=False)

    assert texts(ROWS, decoder=narrow, max_tokens=60) == texts(ROWS, decoder=wide, max_tokens=60)


def test_the_caller_hears_of_a_long_text_while_it_is_written():
    sampling = TextSampling(micro_batch=2, max_tokens=10 * YIELD_EVERY, temperature=0)
    slots = Slots(Hashing(2, end=-9), TOKENIZER, sampling, torch.device("cpu"))

    told = list(slots.decode(iter([Row(0)]), lambda rows: Draw([(0, row.index) for row in rows])))

    assert [len(made) for made in told] == [0] * 9 + [1]


def test_rows_are_taken_only_when_a_slot_is_free():
    taken = count()
    rows = (Row(next(taken)) for _ in range(50))
    sampling = TextSampling(micro_batch=4, max_tokens=10)
    slots = Slots(Hashing(4), TOKENIZER, sampling, torch.device("cpu"))
    made = next(slots.decode(rows, lambda rows: Draw([(0, row.index) for row in rows])))

    assert next(taken) <= 4
    assert made


def test_what_cannot_follow_is_never_written():
    decoder = Hashing(4)
    letter = TOKENIZER.encode("t")[0]
    decoder.table[:, letter] = -torch.inf

    assert "t" not in "".join(texts(ROWS, decoder=decoder, temperature=3).values())


@pytest.mark.parametrize("damage", [torch.nan, torch.inf])
def test_logits_that_are_not_finite_are_refused(damage):
    decoder = Hashing(4)
    decoder.table[:, 3] = damage

    with pytest.raises(NonFinite, match="not finite"):
        texts(ROWS, decoder=decoder)
