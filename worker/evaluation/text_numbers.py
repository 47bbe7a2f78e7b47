"""Numbers of texts: losses, diversity, likeness to references, notes, languages.

Each function adds numbers and returns the arrays that they follow from, with the items on axis 0.
"""

from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

import numpy as np
import numpy.typing as npt

from worker.cleaning.languages import language_of
from worker.evaluation.held_out import Losses
from worker.evaluation.numbers import RESAMPLES, Numbers
from worker.evaluation.writings import Words, Writings
from worker.metrics import bootstrap, language_models, melodies, ngrams, rouge, text_diversity
from worker.metrics.samples import Indices, Values
from worker.music import notes

FEWEST_NOTES = 4  # of a text that is music

Arrays = dict[str, npt.NDArray[Any]]


def add_losses(numbers: Numbers, losses: Losses) -> Arrays:
    """Add how well the version predicts held-out texts."""
    n, pairs = len(losses.nll), (losses.nll, losses.tokens)
    for name in ("loss", "perplexity"):
        statistic = partial(_of_pair, getattr(language_models, name))
        numbers.add(name, bootstrap.interval(statistic, pairs), n=n)
    arrays = {"nll": losses.nll, "tokens": losses.tokens}
    if losses.characters is None:
        numbers.leave_out("the family does not count characters", "bits_per_character")
        return arrays
    bits = partial(_of_pair, language_models.bits_per_character)
    numbers.add(
        "bits_per_character", bootstrap.interval(bits, (losses.nll, losses.characters)), n=n
    )
    return arrays | {"characters": losses.characters}


def add_diversity(numbers: Numbers, writings: Writings) -> Arrays:
    """Add how different the made texts are from one another, beside real ones of equal length."""
    made, real, n = writings.made_words, writings.real_words, len(writings.made)
    for size in (1, 2, 3):
        statistic = partial(_distinct, made, size)
        found = bootstrap.interval(statistic, np.arange(n), resamples=RESAMPLES)
        numbers.add(f"distinct_{size}", found, n=n, real=text_diversity.distinct(real, size))
    arrays = _word_arrays(writings)
    # excerpts are as long as the made texts
    known = float(arrays["real_words"].mean()) if writings.references else None
    lengths = bootstrap.interval(np.mean, arrays["made_words"].astype(np.float64))
    numbers.add("length", lengths, n=n, real=known)
    if not numbers.suits(n, "self_bleu"):
        return arrays
    scores, alike = (text_diversity.self_bleu_scores(each) for each in (made, real))
    numbers.add("self_bleu", bootstrap.interval(np.mean, scores), n=n, real=float(alike.mean()))
    return arrays | {"made_self_bleu": scores, "real_self_bleu": alike}


def add_likeness(numbers: Numbers, writings: Writings) -> Arrays:
    """Add how alike made texts and references are."""
    if not writings.references:
        reason = "the split has no prompts with completions"
        numbers.leave_out(reason, "chrf", "bleu", "rouge_l")
        return {}
    n = len(writings.made)
    words = list(zip(writings.made_words, writings.real_words, strict=True))
    texts = zip(writings.made, writings.real, strict=True)
    characters = np.array([ngrams.chrf_counts(*pair) for pair in texts])
    counts = np.array([ngrams.bleu_counts(*pair) for pair in words])
    overlaps = np.array([rouge.rouge_l(*pair) for pair in words])
    numbers.add("chrf", bootstrap.interval(ngrams.chrf, characters), n=n)
    numbers.add("bleu", bootstrap.interval(ngrams.bleu, counts), n=n)
    numbers.add("rouge_l", bootstrap.interval(np.mean, overlaps), n=n)
    return {"made_chrf": characters, "made_bleu": counts, "made_rouge_l": overlaps}


def add_notes(numbers: Numbers, writings: Writings) -> Arrays:
    """Add how alike the notes are, where held-out texts are music."""
    names = ("pitch_class_histogram", "interval_histogram")
    made, real, other = (
        [_pitches(text) for text in texts]
        for texts in (writings.made, writings.documents, writings.training)
    )
    if not writings.are_music:
        return {}
    if not any(made):
        numbers.leave_out("no sample holds notes", *names)
        return {}
    counts = (melodies.pitch_class_counts, melodies.interval_counts)
    arrays: Arrays = {}
    for name, count, array in zip(names, counts, ("pitch_classes", "intervals"), strict=True):
        rows, known, others = (count(pieces) for pieces in (made, real, other or [[]]))
        pieces = rows[rows.any(axis=1)], known[known.any(axis=1)]
        if not all(map(len, pieces)):
            numbers.leave_out("no sample holds notes", name)
            continue
        found = bootstrap.interval(melodies.histogram_overlap, pieces[1], pieces[0])
        alike = melodies.histogram_overlap(known, others) if others.any() else None
        numbers.add(name, found, n=len(pieces[0]), real=alike)
        arrays |= {f"made_{array}": rows, f"real_{array}": known}
    return arrays


def add_languages(numbers: Numbers, writings: Writings) -> Arrays:
    """Add how alike the languages of the texts are; notes are in none."""
    if writings.are_music:
        return {}
    texts = (writings.made, writings.real, writings.other)
    found = [[language_of(text) for text in each] for each in texts]
    known = sorted({name for each in found for name in each})
    made, real, other = (
        np.array([[name == each for each in known] for name in names], np.int64) for names in found
    )
    interval = bootstrap.interval(melodies.histogram_overlap, real, made)
    alike = melodies.histogram_overlap(real, other)
    numbers.add("language", interval, n=len(made), real=alike)
    return {"made_languages": made, "real_languages": real}


def _word_arrays(writings: Writings) -> Arrays:
    """The number of words of each text, and the words of all of them as numbers."""
    sides = {"made": writings.made_words, "real": writings.real_words}
    known = sorted({word for texts in sides.values() for words in texts for word in words})
    numbers = {word: number for number, word in enumerate(known)}
    arrays: Arrays = {}
    for side, texts in sides.items():
        ids = [numbers[word] for words in texts for word in words]
        arrays[f"{side}_word_ids"] = np.array(ids, np.int32)
        arrays[f"{side}_words"] = np.array([len(words) for words in texts], np.int64)
    return arrays


def _distinct(texts: Sequence[Words], size: int, chosen: Indices) -> float:
    return text_diversity.distinct([texts[place] for place in chosen], size)


def _of_pair(statistic: Callable[..., float], pair: tuple[Values, Values]) -> float:
    return statistic(*pair)


def _pitches(text: str) -> list[int]:
    """The pitches of a text that holds notes, in order; none of one that holds few."""
    found = [note.pitch for note in notes.read(text).notes]
    return found if len(found) >= FEWEST_NOTES else []
