"""The metrics of texts equal other implementations of them, and keep their laws."""

import itertools
import math
from pathlib import Path

import numpy as np
import pytest
import sacrebleu
import torch
from rouge_score.rouge_scorer import RougeScorer
from rouge_score.tokenizers import Tokenizer
from torchmetrics.text import Perplexity

from db.errors import NonFinite, Refused
from worker.metrics import language_models, ngrams, text_diversity
from worker.metrics.rouge import common_subsequence, rouge_l

CLOSE = 1e-6

WORDS = ["the", "cat", "sat", "on", "a", "mat", "and", "saw", "dogs", "."]


def sentences(seed: int, count: int, longest: int = 14) -> list[list[str]]:
    random = np.random.default_rng(seed)
    return [
        [WORDS[index] for index in random.integers(0, len(WORDS), random.integers(1, longest))]
        for _ in range(count)
    ]


PAIRS = list(zip(sentences(1, 60), sentences(2, 60), strict=True))
EDITED = [(text, [*text[:4], "bird", *text[5:]]) for text in sentences(3, 30)]


class Spaces(Tokenizer):
    """The tokens that our functions are given."""

    def tokenize(self, text: str) -> list[str]:
        return text.split()


@pytest.mark.parametrize("pairs", [PAIRS, EDITED, PAIRS[:1], EDITED[:2]])
def test_bleu_is_that_of_sacrebleu(pairs: list[tuple[list[str], list[str]]]) -> None:
    made, references = ([" ".join(text) for text in side] for side in zip(*pairs, strict=True))
    expected = sacrebleu.corpus_bleu(made, [references], tokenize="none", force=True)
    rows = np.array([ngrams.bleu_counts(*pair) for pair in pairs])
    assert ngrams.bleu(rows) == pytest.approx(expected.score, rel=CLOSE)


@pytest.mark.parametrize("pairs", [PAIRS, EDITED, PAIRS[:1], EDITED[:2]])
def test_chrf_is_that_of_sacrebleu(pairs: list[tuple[list[str], list[str]]]) -> None:
    made, references = ([" ".join(text) for text in side] for side in zip(*pairs, strict=True))
    expected = sacrebleu.corpus_chrf(made, [references])
    rows = [ngrams.chrf_counts(*pair) for pair in zip(made, references, strict=True)]
    assert ngrams.chrf(np.array(rows)) == pytest.approx(expected.score, rel=CLOSE)


def test_rouge_l_is_that_of_rouge_score() -> None:
    scorer = RougeScorer(["rougeL"], tokenizer=Spaces())
    for made, reference in PAIRS + EDITED:
        expected = scorer.score(" ".join(reference), " ".join(made))["rougeL"].fmeasure
        assert rouge_l(made, reference) == pytest.approx(expected, rel=CLOSE)


def test_an_empty_text_scores_nothing() -> None:
    assert rouge_l([], ["a"]) == rouge_l(["a"], []) == rouge_l([], []) == 0
    assert common_subsequence([1, 2, 3], [1, 3]) == 2
    assert ngrams.bleu(np.array([ngrams.bleu_counts([], ["a"])])) == 0
    assert ngrams.chrf(np.array([ngrams.chrf_counts("", "a")])) == 0


def test_equal_texts_score_most() -> None:
    text = ["the", "cat", "sat", "on", "a", "mat"]
    assert ngrams.bleu(np.array([ngrams.bleu_counts(text, text)])) == pytest.approx(100)
    assert ngrams.chrf(np.array([ngrams.chrf_counts("a mat here", "a mat here")])) == 100
    assert rouge_l(text, text) == 1


@pytest.mark.parametrize("texts", [sentences(4, 25), sentences(5, 3), [["a"], ["a"], ["b"]]])
def test_self_bleu_is_the_mean_of_sacrebleu_against_all_others(texts: list[list[str]]) -> None:
    joined = [" ".join(text) for text in texts]
    expected = [
        sacrebleu.sentence_bleu(text, joined[:place] + joined[place + 1 :], tokenize="none").score
        for place, text in enumerate(joined)
    ]
    assert text_diversity.self_bleu(texts) == pytest.approx(np.mean(expected), rel=CLOSE)


def test_self_bleu_rises_with_repetition_and_is_sampled_by_its_seed() -> None:
    texts = sentences(6, 120)
    repeated = texts[:20] * 6
    assert text_diversity.self_bleu(repeated) == pytest.approx(100)
    first = text_diversity.self_bleu(texts, most=30, seed=1)
    assert first == text_diversity.self_bleu(texts, most=30, seed=1)
    assert first != text_diversity.self_bleu(texts, most=30, seed=2)
    assert first < text_diversity.self_bleu(texts)


def test_distinct_counts_different_ngrams_of_all_texts() -> None:
    texts = sentences(7, 40)
    for n in (1, 2, 3):
        pairs = [tuple(t[i : i + n]) for t in texts for i in range(len(t) - n + 1)]
        assert text_diversity.distinct(texts, n) == len(set(pairs)) / len(pairs)
    assert text_diversity.distinct([["a"]], 2) == 0
    assert text_diversity.distinct(texts * 2, 1) < text_diversity.distinct(texts, 1)


def test_lengths_are_those_of_numpy() -> None:
    found = text_diversity.length_statistics([3, 1, 8])
    assert found == (4, np.std([3, 1, 8]), 1, 3, 8)


def test_perplexity_is_that_of_torchmetrics() -> None:
    torch.manual_seed(0)
    logits, targets = torch.randn(4, 9, 7, dtype=torch.float64), torch.randint(0, 7, (4, 9))
    metric = Perplexity().set_dtype(torch.float64)
    metric.update(logits, targets)
    nll = torch.nn.functional.cross_entropy(logits.transpose(1, 2), targets, reduction="none")
    ours = language_models.perplexity(nll.sum(dim=1).numpy(), np.full(4, 9))
    assert ours == pytest.approx(float(metric.compute()), rel=CLOSE)
    assert math.log(ours) == language_models.loss(nll.sum(dim=1).numpy(), np.full(4, 9))


def test_documents_weigh_as_much_as_they_are_long() -> None:
    nll, characters = np.array([8.0, 1.0]) * math.log(2), np.array([4, 1])
    assert language_models.bits_per_character(nll, characters) == pytest.approx(9 / 5)
    assert language_models.perplexity(np.array([9e9]), np.array([1])) == math.inf


def test_more_damage_scores_less(shared_data: Path) -> None:
    lines = (shared_data / "tinyshakespeare.txt").read_text("utf-8").splitlines()
    references = [line.split() for line in lines if len(line.split()) > 5][:300]
    random = np.random.default_rng(0)

    def damaged(share: float) -> list[list[str]]:
        return [[w if random.random() >= share else "x" for w in text] for text in references]

    scores = []
    for share in (0, 0.1, 0.3, 0.6, 1):
        pairs = list(zip(damaged(share), references, strict=True))
        rows = np.array([ngrams.bleu_counts(*pair) for pair in pairs])
        characters = [ngrams.chrf_counts(" ".join(one), " ".join(other)) for one, other in pairs]
        overlaps = np.mean([rouge_l(*pair) for pair in pairs])
        scores.append((ngrams.bleu(rows), ngrams.chrf(np.array(characters)), overlaps))
    for better, worse in itertools.pairwise(scores):
        assert all(a > b for a, b in zip(better, worse, strict=True))


def test_unusable_texts_are_refused() -> None:
    with pytest.raises(Refused, match="hold no tokens"):
        language_models.loss(np.zeros(2), np.zeros(2, np.int64))
    with pytest.raises(Refused, match="losses of 2 documents and characters of 3"):
        language_models.bits_per_character(np.zeros(2), np.ones(3, np.int64))
    with pytest.raises(NonFinite, match="NaN"):
        language_models.perplexity(np.array([np.nan]), np.ones(1, np.int64))
    with pytest.raises(Refused, match="no pairs"):
        ngrams.bleu(np.empty((0, 10), np.int64))
    with pytest.raises(Refused, match="no others"):
        text_diversity.self_bleu([["a"]])
    with pytest.raises(Refused, match="no texts"):
        text_diversity.length_statistics([])
