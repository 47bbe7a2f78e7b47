from itertools import product

import numpy as np
import pytest
import torch
from transformers import SynthIDTextWatermarkLogitsProcessor

from worker.marks.watermarks.tokens import (
    CONTEXT,
    DEPTH,
    TABLE,
    VARIANTS,
    WEIGHTS,
    detect,
    g_values,
    ngrams_of,
    tail,
    variant_of,
    watermark_of,
)

SECRET, OTHER = b"a secret of a tenant", b"that of another"


def theirs(variant=0):
    """The watermark of transformers, with our keys and table."""
    keys, table = watermark_of(SECRET, variant)
    processor = SynthIDTextWatermarkLogitsProcessor(
        ngram_len=CONTEXT + 1,
        keys=keys.tolist(),
        sampling_table_size=TABLE,
        sampling_table_seed=0,
        context_history_size=1024,
        device=torch.device("cpu"),
        skip_first_ngram_calls=True,
    )
    processor.sampling_table = torch.from_numpy(table.astype(np.int64))
    return processor


def random_tokens(count, vocabulary=50_000, seed=0):
    return np.random.default_rng(seed).integers(0, vocabulary, count)


@pytest.mark.parametrize("vocabulary", [3, 300, 50_000])
def test_g_values_are_those_of_transformers(vocabulary):
    ids = random_tokens(200, vocabulary)
    ngrams = np.lib.stride_tricks.sliding_window_view(ids, CONTEXT + 1)
    keys, table = watermark_of(SECRET, 7)

    ours = g_values(ngrams, keys[:, None], table)

    expected = theirs(7).compute_g_values(torch.from_numpy(ids[None]))[0]
    assert (expected.numpy() == ours.T).all()


def test_the_contexts_that_count_are_those_of_transformers():
    ids = random_tokens(200, 3)
    mask = theirs().compute_context_repetition_mask(torch.from_numpy(ids[None]))[0].numpy()

    windows = np.lib.stride_tricks.sliding_window_view(ids, CONTEXT + 1)
    assert 10 < mask.sum() < 180
    assert (ngrams_of(ids.tolist()) == windows[mask]).all()


def test_the_keys_of_a_secret_never_change():
    """They verify what was marked years ago."""
    keys, table = watermark_of(SECRET, 3)
    assert hex(int(keys[0])) == "0x66512db37a362c2f"
    assert table[:16].tolist() == [1, 1, 0, 1, 1, 1, 1, 1, 1, 0, 0, 0, 1, 1, 0, 0]
    assert (keys < 2**63).all()
    assert table.mean() == pytest.approx(0.5, abs=0.003)
    assert len({int(watermark_of(SECRET, each).keys[0]) for each in range(VARIANTS)}) == VARIANTS


def test_variants_are_spread_over_the_samples_of_a_job():
    found = [variant_of(3, index) for index in range(VARIANTS)]
    assert len(set(found)) > VARIANTS / 2
    assert variant_of(4, 0) != found[0]


def test_the_tail_of_one_token_is_that_of_all_its_bits():
    weights = np.array([*product((0, 1), repeat=8)]) @ WEIGHTS[:8]
    rest = np.array([*product((0, 1), repeat=DEPTH - 8)]) @ WEIGHTS[8:]
    scores = (weights[:, None] + rest).ravel()
    for score in (0, 1, 40, 68, 100, scores.max()):
        assert tail(int(score), 1, 0.5) == pytest.approx(np.mean(scores >= score))
    assert tail(int(scores.max()) + 1, 1, 0.5) == 0


def test_the_tail_is_exact_far_out():
    most = int(WEIGHTS.sum())
    assert tail(20 * most, 20, 0.5) == pytest.approx(0.5 ** (20 * DEPTH))
    # all bits but one of the lightest, of which there are 20
    assert tail(20 * most - 1, 20, 0.5) == pytest.approx(21 * 0.5 ** (20 * DEPTH))


def test_the_tail_of_many_tokens_is_that_of_a_simulation():
    rng = np.random.default_rng(0)
    sums = rng.binomial(40, 0.5, (100_000, DEPTH)) @ WEIGHTS
    for share in (0.5, 0.1, 0.01):
        score = int(np.quantile(sums, 1 - share))
        assert tail(score, 40, 0.5) == pytest.approx(np.mean(sums >= score), rel=0.1)


def test_the_time_of_a_test_does_not_depend_on_the_factors_of_a_number(monkeypatch):
    """A Fourier transform of a prime size takes many times as long."""
    sizes, rfft = [], np.fft.rfft
    monkeypatch.setattr(np.fft, "rfft", lambda *given: sizes.append(given[1]) or rfft(*given))
    for count in (9, 40, 215, 995):
        tail(count * 60, count, 0.5)
    assert [size.bit_count() for size in sizes] == [1] * 4


def test_p_values_of_texts_written_without_the_key_are_uniform():
    found = [detect(random_tokens(100, 40, seed), SECRET, 0).p_value for seed in range(200)]
    for level in (0.5, 0.1, 0.02):
        assert np.mean([each <= level for each in found]) == pytest.approx(level, abs=0.08)


def test_not_knowing_the_variant_costs_their_number():
    ids = random_tokens(60, 40)
    each = [detect(ids, SECRET, variant).p_value for variant in range(VARIANTS)]
    assert detect(ids, SECRET).p_value == pytest.approx(min(1, VARIANTS * min(each)))


@pytest.mark.parametrize("count", [0, 1, CONTEXT])
def test_too_few_tokens_say_nothing(count):
    assert detect(random_tokens(count), SECRET) == (1.0, 0)
