"""Conversion between MIDI files and pieces of notes; `mido` writes the files.

Rhythm is quantised to sixteenths, silence before the first note is cut, channels are merged, and
changes of tempo are moved to the next start or end of a note. Drums (channel 10), velocity, pedals
and instruments are left out.
"""

from bisect import bisect_left
from dataclasses import replace
from io import BytesIO

import mido

from db.errors import BadInput, raise_outage
from worker.music.midi_events import Event, read_events
from worker.music.notes import FASTEST, SLOWEST, Note, Piece, piece_of, write

MAX_SIXTEENTHS = 100_000  # in a piece; an opera has far fewer
TICKS = 24  # in a sixteenth, in files that we write
VELOCITY = 80  # of 127
DRUMS = 9  # channel 10, counted from 0
COMMENT = "text"  # the type of event that holds one
CHARSET = "utf-8"  # of texts; mido's own would be Latin-1


def read_midi(data: bytes) -> Piece:
    """The piece in a standard MIDI file; `BadInput` if there is none."""
    file = read_events(data)
    timed = [(round(4 * each.tick / file.ticks_per_beat), each) for each in file.events]
    tempi = {
        at: min(max(round(60e6 / each.tempo), SLOWEST), FASTEST)
        for at, each in timed
        if each.tempo and at <= MAX_SIXTEENTHS
    }
    played = [(at, each) for at, each in timed if not each.tempo and each.channel != DRUMS]
    notes = _notes(played, round(4 * file.last / file.ticks_per_beat))
    if not notes:
        raise BadInput("holds no pitched notes")
    return _trimmed(notes, tempi)


def midi_to_text(data: bytes) -> str:
    """A MIDI file as text; `BadInput` as in `read_midi`."""
    return write(read_midi(data))


def write_midi(piece: Piece, *, comment: str = "") -> bytes:
    """A piece as a standard MIDI file for one piano, with a text event for a comment."""
    messages: list[tuple[int, int, mido.Message | mido.MetaMessage]] = []
    if comment:
        messages.append((0, -1, mido.MetaMessage(COMMENT, text=comment)))
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
    file = mido.MidiFile(type=0, ticks_per_beat=4 * TICKS, tracks=[track], charset=CHARSET)
    target = BytesIO()
    file.save(file=target)
    return target.getvalue()


def read_comment(data: bytes) -> str:
    """The first text event of a MIDI file; `BadInput` if there is none."""
    try:
        tracks = mido.MidiFile(file=BytesIO(data), charset=CHARSET).tracks
        texts = (each.text for track in tracks for each in track if each.type == COMMENT)
        comment = next(texts, None)
    except Exception as error:  # the library raises many kinds of errors
        raise_outage(error)
        raise BadInput(f"not a readable MIDI file: {error}") from error
    if comment is None:
        raise BadInput("a MIDI file without a text event")
    return str(comment)


def _notes(played: list[tuple[int, Event]], ending: int) -> list[Note]:
    """The notes between events at sixteenths; those left sounding end at `ending`."""
    notes, sounding = list[Note](), dict[int, int]()
    if played and played[-1][0] > MAX_SIXTEENTHS:
        raise BadInput(f"longer than {MAX_SIXTEENTHS:,} sixteenths")
    for at, event in played:
        if event.pitch in sounding:
            notes.append(_note(event.pitch, sounding.pop(event.pitch), at))
        if event.velocity:
            sounding[event.pitch] = at
    if ending > MAX_SIXTEENTHS:  # of a track whose end is misplaced
        ending = played[-1][0] if played else 0
    return notes + [_note(pitch, start, ending) for pitch, start in sounding.items()]


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
