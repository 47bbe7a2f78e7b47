"""Music as text: a small language of notes, quantised to sixteenths.

A piece is a series of words separated by white space. An event begins where the one before it
ends::

    t100 60:4 62:2 64:2 r:4 60+64+67:8 60_+65+69:8

- `60:4` is the note of MIDI pitch 60 (0 to 127; 60 is middle C), lasting 4 sixteenths (1 to 64).
- `60+64+67:8` is a chord: pitches of equal length that begin together.
- `60_`, alone or in a chord, is tied to the same pitch in the event before, so that notes can
  overlap. If that pitch did not sound, the note begins here.
- `r:4` is a rest.
- `t100` sets the tempo to 100 quarter notes a minute (20 to 300; 120 by default).

Other words are skipped, because models make mistakes: every text can be read. `read` returns the
piece that `write` wrote.
"""

import itertools
import re
from collections import deque
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, replace

LONGEST = 64  # sixteenths of a word; longer notes are tied
TEMPO, SLOWEST, FASTEST = 120, 20, 300  # quarter notes a minute
HIGHEST = 127

_TEMPO = re.compile(r"t(\d{2,3})", re.ASCII)
_EVENT = re.compile(r"(r|\d{1,3}_?(?:\+\d{1,3}_?)*):(\d{1,2})", re.ASCII)


@dataclass(frozen=True, order=True)
class Note:
    """A pitch that begins at sixteenth `start` and sounds for `length` sixteenths."""

    start: int
    pitch: int
    length: int

    @property
    def end(self) -> int:
        """The first sixteenth after the note."""
        return self.start + self.length


@dataclass(frozen=True)
class Piece:
    """Notes in order of start and pitch; no two of one pitch overlap.

    `tempi` are pairs (sixteenth, quarter notes a minute). The first is at 0, none comes after the
    last note, and each differs from the one before. Use `piece_of` to make a piece.
    """

    notes: tuple[Note, ...]
    tempi: tuple[tuple[int, int], ...] = ((0, TEMPO),)

    @property
    def length(self) -> int:
        """Sixteenths until the last note ends."""
        return max((note.end for note in self.notes), default=0)


def piece_of(notes: Iterable[Note], tempi: Mapping[int, int]) -> Piece:
    """A piece of `notes`, each cut where the next of its pitch begins, and `tempi` by sixteenth."""
    kept = Piece(tuple(sorted(_without_overlaps(sorted(notes)))))
    if not kept.notes:
        return kept
    changes = [(0, tempi.get(0, TEMPO))]
    for at, tempo in sorted(tempi.items()):
        if tempo != changes[-1][1] and at < kept.length:
            changes.append((at, tempo))
    return Piece(kept.notes, tuple(changes))


def read(text: str) -> Piece:
    """The piece in a text, perhaps without notes."""
    notes: list[Note] = []
    tempi = dict[int, int]()
    sounding: dict[int, int] = {}  # pitch -> where its note began
    at = 0
    for word in text.split():
        if match := _TEMPO.fullmatch(word):
            if SLOWEST <= int(match[1]) <= FASTEST:
                tempi[at] = int(match[1])
        elif event := _event(word):
            pitches, length = event
            begun = {p: sounding.get(p, at) if held else at for p, held in pitches.items()}
            notes += [Note(s, p, at - s) for p, s in sounding.items() if begun.get(p) != s]
            sounding, at = begun, at + length
    notes += [Note(start, pitch, at - start) for pitch, start in sounding.items()]
    return piece_of(notes, tempi)


def is_music(text: str) -> bool:
    """Whether most of the words of a text are events and tempi, as in a piece of music."""
    words = text.split()
    return 2 * sum(bool(_TEMPO.fullmatch(each) or _event(each)) for each in words) > len(words)


def write(piece: Piece) -> str:
    """The text of a piece."""
    tempi = dict(piece.tempi)
    bounds = {*tempi} | {n.start for n in piece.notes} | {n.end for n in piece.notes}
    words, sounding, left = list[str](), list[Note](), deque(piece.notes)
    for start, end in itertools.pairwise(sorted(bounds)):
        words += [f"t{tempi[start]}"] if start in tempi else []
        sounding = [note for note in sounding if note.end > start]
        while left and left[0].start == start:
            sounding.append(left.popleft())
        words += _words({note.pitch: note.start < start for note in sounding}, end - start)
    return " ".join(words)


def _words(pitches: dict[int, bool], length: int) -> Iterator[str]:
    """The word of an event; several tied ones if it is longer than `LONGEST`."""
    while length > 0:
        names = "+".join(f"{p}_" if held else f"{p}" for p, held in sorted(pitches.items()))
        yield f"{names or 'r'}:{min(length, LONGEST)}"
        pitches, length = dict.fromkeys(pitches, True), length - LONGEST


def _event(word: str) -> tuple[dict[int, bool], int] | None:
    """An event's pitches, with whether each is tied, and its length; None for other words."""
    match = _EVENT.fullmatch(word)
    if not match:
        return None
    names = [] if match[1] == "r" else match[1].split("+")
    pitches = {int(name.removesuffix("_")): name.endswith("_") for name in names}
    length = int(match[2])
    if not 1 <= length <= LONGEST or max(pitches, default=0) > HIGHEST:
        return None
    return pitches, length


def _without_overlaps(notes: Iterable[Note]) -> Iterator[Note]:
    """Cut `notes`, which are sorted, so that no two of one pitch overlap."""
    last: dict[int, Note] = {}
    for note in notes:
        before = last.get(note.pitch)
        if before and before.start < note.start:
            yield replace(before, length=min(before.length, note.start - before.start))
        last[note.pitch] = note  # of two that begin together, the second is longer
    yield from last.values()
