"""An additive synthesiser for pieces of notes: a few harmonics under an envelope.

A note of pitch p has 440 x 2^((p - 69) / 12) Hz (equal temperament). Its harmonics decay like those
of a plucked string, higher ones faster, and it is damped when it ends. Every piece is normalised to
the same peak. Equal pieces give equal bytes.
"""

import math
from collections.abc import Iterator

import numpy as np
import numpy.typing as npt

from worker.music.notes import Note, Piece

RATE = 22_050  # Hz
HARMONICS = (1.0, 0.5, 0.3, 0.15, 0.08)  # initial amplitudes
DECAY_S = 1.5  # harmonic h decays by a factor of e in DECAY_S / h seconds
ATTACK_S, DAMPING_S = 0.01, 0.05
PEAK = 0.8  # of full scale
MAX_S = 600  # longer pieces are cut

Sound = npt.NDArray[np.float64]
Samples = npt.NDArray[np.int16]  # (T,), mono


def play(piece: Piece) -> Samples:
    """The samples of a piece, mono, at `RATE`."""
    times = list(_seconds(piece))
    ending = max((stop for _, _, stop in times), default=0.0) + DAMPING_S
    mix = np.zeros(math.ceil(min(ending, MAX_S) * RATE))
    for note, start, stop in times:
        first = round(start * RATE)
        if first < len(mix):
            sound = _tone(note.pitch, min(stop, MAX_S) - start)[: len(mix) - first]
            mix[first : first + len(sound)] += sound
    peak = float(np.abs(mix).max(initial=0.0)) or 1.0
    samples: Samples = np.rint(mix * (PEAK / peak) * 32767).astype(np.int16)
    return samples


def frequency(pitch: int) -> float:
    """The frequency in Hz of a MIDI pitch."""
    return float(440 * 2 ** ((pitch - 69) / 12))


def _seconds(piece: Piece) -> Iterator[tuple[Note, float, float]]:
    """Each note, and the seconds at which it begins and ends."""
    changes = np.array([at for at, _ in piece.tempi], float)
    sixteenth = np.array([15 / tempo for _, tempo in piece.tempi])  # seconds
    begun = np.concatenate([[0.0], np.cumsum(np.diff(changes) * sixteenth[:-1])])
    for note in piece.notes:
        start, stop = (
            float(begun[i] + (at - changes[i]) * sixteenth[i])
            for at in (note.start, note.end)
            for i in [int(np.searchsorted(changes, at, side="right")) - 1]
        )
        yield note, start, stop


def _tone(pitch: int, seconds: float) -> Sound:
    """The sound of a note, including `DAMPING_S` after its end."""
    t = np.arange(math.ceil((seconds + DAMPING_S) * RATE)) / RATE
    base = frequency(pitch)
    audible = [(h, a) for h, a in enumerate(HARMONICS, start=1) if h * base < RATE / 2]
    waves = [a * np.exp(-t * h / DECAY_S) * np.sin(2 * np.pi * h * base * t) for h, a in audible]
    attack = np.minimum(t / ATTACK_S, 1.0)
    damping = np.clip(1 - (t - seconds) / DAMPING_S, 0.0, 1.0)
    tone: Sound = np.sum(waves, axis=0) * attack * damping
    return tone
