"""Conversion between MIDI files and pieces of notes, by `mido`.

Rhythm is quantised to sixteenths, silence before the first note is cut, channels are merged, and
changes of tempo are moved to the next start or end of a note. Drums (channel 10), velocity, pedals
and instruments are left out.
"""

from bisect import bisect_left
from collections.abc import Iterator
from dataclasses import replace
from io import BytesIO

import mido

from db.errors import BadInput
from worker.music.notes import FASTEST, SLOWEST, Note, Piece, piece_of, write

MAX_SIXTEENTHS = 100_000  # in a piece; an opera has far fewer
TICKS = 24  # in a sixteenth, in files that we write
VELOCITY = 80  # of 127
DRUMS = 9  # channel 10, counted from 0


def read_midi(data: bytes) -> Piece:
    """The piece in a standard MIDI file; `BadInput` if there is none."""
    file = _open(data)
    notes, tempi, sounding, at = list[Note](), dict[int, int](), dict[int, int](), 0
    for at, message in _timed(file):
        if message.type == "set_tempo":
            tempi[at] = min(max(round(mido.tempo2bpm(message.tempo)), SLOWEST), FASTEST)
        elif message.type in {"note_on", "note_off"} and message.channel != DRUMS:
            if message.note in sounding:
                notes.append(_note(message.note, sounding.pop(message.note), at))
            if message.type == "note_on" and message.velocity:
                sounding[message.note] = at
    notes += [_note(pitch, start, at) for pitch, start in sounding.items()]
    if not notes:
        raise BadInput("holds no pitched notes")
    return _trimmed(notes, tempi)


def midi_to_text(data: bytes) -> str:
    """A MIDI file as text; `BadInput` as in `read_midi`."""
    return write(read_midi(data))


def write_midi(piece: Piece) -> bytes:
    """A piece as a standard MIDI file for one piano."""
    messages: list[tuple[int, int, mido.Message | mido.MetaMessage]] = []
    for at, tempo in piece.tempi:
        change = mido.MetaMessage("set_tempo", tempo=mido.bpm2tempo(tempo))
        messages.append((at, 0, change))
    for note in piece.notes:
        ends = mido.Message("note_off", note=note.pitch, velocity=0)
        messages.append((note.end, 1, ends))  # before notes that begin there, perhaps its own pitch
        begins = mido.Message("note_on", note=note.pitch, velocity=VELOCITY)
        messages.append((note.start, 2, begins))
    track, last = mido.MidiTrack(), 0
    for at, _, message in sorted(messages, key=lambda one: one[:2]):
        track.append(message.copy(time=(at - last) * TICKS))
        last = at
    track.append(mido.MetaMessage("end_of_track", time=0))
    file = mido.MidiFile(type=0, ticks_per_beat=4 * TICKS, tracks=[track])
    target = BytesIO()
    file.save(file=target)
    return target.getvalue()


def _open(data: bytes) -> mido.MidiFile:
    try:
        file = mido.MidiFile(file=BytesIO(data), clip=True)
    except Exception as error:  # the library raises many kinds of errors
        reason = str(error) or type(error).__name__
        raise BadInput(f"not a readable MIDI file: {reason}") from None
    if file.type == 2:
        raise BadInput(
            "a MIDI file of type 2: its tracks are separate pieces", remedy="save them as files"
        )
    if not 0 < file.ticks_per_beat < 2**15:
        raise BadInput(
            "a MIDI file with SMPTE time codes", remedy="save it with times in ticks per beat"
        )
    return file


def _timed(file: mido.MidiFile) -> Iterator[tuple[int, mido.Message]]:
    """The messages of all tracks in order, with their times in sixteenths."""
    ticks = 0
    for message in mido.merge_tracks(file.tracks):
        ticks += message.time
        at = round(4 * ticks / file.ticks_per_beat)
        if at > MAX_SIXTEENTHS:
            raise BadInput(f"longer than {MAX_SIXTEENTHS:,} sixteenths")
        yield at, message


def _note(pitch: int, start: int, end: int) -> Note:
    return Note(start, pitch, max(end - start, 1))


def _trimmed(notes: list[Note], tempi: dict[int, int]) -> Piece:
    """A piece that begins with its first note and changes tempo where notes begin or end."""
    begin = min(note.start for note in notes)
    moved = [replace(note, start=note.start - begin) for note in notes]
    bounds = sorted({note.start for note in moved} | {note.end for note in moved})
    places = {at: bisect_left(bounds, at - begin) for at in sorted(tempi)}
    changes = {bounds[i]: tempi[at] for at, i in places.items() if i < len(bounds)}
    return piece_of(moved, changes)
