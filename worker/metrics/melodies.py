"""Histograms of the notes of pieces; `histograms.overlap` and `divergence` compare them.

After Yang and Lerch 2020, "On the evaluation of generative models in music", section 3. Each piece
is a row, so that pieces can be resampled; add rows up before comparing.
"""

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from db.errors import Refused
from worker.metrics.histograms import overlap

PITCH_CLASSES = 12
WIDEST = 12  # semitones; wider intervals count as this wide
HIGHEST = 127  # MIDI pitch

Rows = npt.NDArray[np.int64]  # (pieces, bins)


def pitch_class_counts(pieces: Sequence[Sequence[int]]) -> Rows:
    """Notes of each pitch class, C first, of the MIDI pitches of each piece: (pieces, 12)."""
    return np.array(
        [np.bincount(_pitches(piece) % PITCH_CLASSES, minlength=PITCH_CLASSES) for piece in pieces]
    )


def interval_counts(pieces: Sequence[Sequence[int]]) -> Rows:
    """Steps from each note to the next, from an octave down to an octave up: (pieces, 25).

    Takes the MIDI pitches of each piece in the order in which they begin, of chords the lowest
    first.
    """
    steps = [np.clip(np.diff(_pitches(piece)), -WIDEST, WIDEST) + WIDEST for piece in pieces]
    return np.array([np.bincount(step, minlength=2 * WIDEST + 1) for step in steps])


def histogram_overlap(real: Rows, made: Rows) -> float:
    """`overlap` of the summed rows of real and made pieces, 0 to 1; higher is better."""
    return overlap(real.sum(axis=0), made.sum(axis=0))


def _pitches(piece: Sequence[int]) -> Rows:
    pitches = np.asarray(piece, np.int64)
    if pitches.size and not 0 <= pitches.min() <= pitches.max() <= HIGHEST:
        raise Refused(
            f"pitches from {pitches.min()} to {pitches.max()}",
            remedy=f"pass MIDI pitches, 0 to {HIGHEST}",
        )
    return pitches
