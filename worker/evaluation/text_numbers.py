"""Numbers of texts: losses, diversity, likeness to references, notes."""

from collections.abc import Callable, Sequence
from functools import partial

import numpy as np

from worker.evaluation.held_out import Losses
from worker.evaluation.numbers import RESAMPLES, Numbers
from worker.evaluation.writings import Words, Writings
from worker.metrics import bootstrap, language_models, melodies, ngrams, rouge, text_diversity
from worker.metrics.samples import Indices, Values
from worker.music import notes

FEWEST_NOTES = 4  # of a text that is music


def add_losses(numbers: Numbers, losses: Losses) -> None:
    """Add how well the version predicts held-out texts."""
    n, pairs = len(losses.nll), (losses.nll, losses.tokens)
    for name in ("loss", "perplexity"):
        statistic = partial(_of_pair, getattr(language_models, name))
        numbers.add(name, bootstrap.interval(statistic, pairs), n=n)
    if losses.characters is None:
        numbers.leave_out("the family does not count characters", "bits_per_character")
        return
    bits = partial(_of_pair, language_models.bits_per_character)
    numbers.add(
        "bits_per_character", bootstrap.interval(bits, (losses.nll, losses.characters)), n=n
    )


def add_diversity(numbers: Numbers, writings: Writings) -> None:
    """Add how different the made texts are from one another, beside real ones of equal length."""
    made, real, n = writings.made_words, writings.real_words, len(writings.made)
    for size in (1, 2, 3):
        statistic = partial(_distinct, made, size)
        found = bootstrap.interval(statistic, np.arange(n), resamples=RESAMPLES)
        numbers.add(f"distinct_{size}", found, n=n, real=text_diversity.distinct(real, size))
    if n < 2:
        numbers.leave_out("it takes two texts", "self_bleu")
    else:
        scores, alike = self_bleu_of(made), float(self_bleu_of(real).mean())
        numbers.add("self_bleu", bootstrap.interval(np.mean, scores), n=n, real=alike)
    lengths = np.array([len(words) for words in made], np.float64)
    # excerpts are as long as the made texts
    known = float(np.mean([len(words) for words in real])) if writings.references else None
    numbers.add("length", bootstrap.interval(np.mean, lengths), n=n, real=known)


def add_likeness(numbers: Numbers, writings: Writings) -> None:
    """Add how alike made texts and references are."""
    if not writings.references:
        reason = "the split has no prompts with completions"
        numbers.leave_out(reason, "chrf", "bleu", "rouge_l")
        return
    n = len(writings.made)
    words = list(zip(writings.made_words, writings.real_words, strict=True))
    texts = zip(writings.made, writings.real, strict=True)
    characters = np.array([ngrams.chrf_counts(*pair) for pair in texts])
    counts = np.array([ngrams.bleu_counts(*pair) for pair in words])
    overlaps = np.array([rouge.rouge_l(*pair) for pair in words])
    numbers.add("chrf", bootstrap.interval(ngrams.chrf, characters), n=n)
    numbers.add("bleu", bootstrap.interval(ngrams.bleu, counts), n=n)
    numbers.add("rouge_l", bootstrap.interval(np.mean, overlaps), n=n)


def add_notes(numbers: Numbers, writings: Writings) -> None:
    """Add how alike the notes are, where held-out texts are music."""
    names = ("pitch_class_histogram", "interval_histogram")
    made, real, other = (
        _pieces(texts) for texts in (writings.made, writings.documents, writings.training)
    )
    if len(real) * 2 < len(writings.documents) or not real:
        return
    if not made:
        numbers.leave_out("no sample holds notes", *names)
        return
    for name, count in zip(
        names, (melodies.pitch_class_counts, melodies.interval_counts), strict=True
    ):
        rows = count(made), count(real)
        found = bootstrap.interval(melodies.histogram_overlap, rows[1], rows[0])
        alike = melodies.histogram_overlap(rows[1], count(other)) if other else None
        numbers.add(name, found, n=len(made), real=alike)


def self_bleu_of(texts: Sequence[Words]) -> Values:
    """The self-BLEU of each text; zeros for fewer than two."""
    if len(texts) < 2:
        return np.zeros(len(texts))
    return text_diversity.self_bleu_scores(texts)


def _distinct(texts: Sequence[Words], size: int, chosen: Indices) -> float:
    return text_diversity.distinct([texts[place] for place in chosen], size)


def _of_pair(statistic: Callable[..., float], pair: tuple[Values, Values]) -> float:
    return statistic(*pair)


def _pieces(texts: Sequence[str]) -> list[list[int]]:
    """The pitches of texts that hold notes, in order."""
    found = ([note.pitch for note in notes.read(text).notes] for text in texts)
    return [pitches for pitches in found if len(pitches) >= FEWEST_NOTES]
