"""The notes and tempi in a standard MIDI file, read as players do: what is not needed is skipped.

Files in the wild have unknown chunks, wrong lengths and counts, broken meta events, tracks without
an end, RIFF around them. Only a track that the end of the file cuts off is damage, because notes
are lost with it. Source: Standard MIDI Files 1.0, MIDI Manufacturers Association, 1988.
"""

import struct
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import NamedTuple

from db.errors import BadInput

TEMPO = 500_000  # microseconds of a quarter note, unless the file says otherwise
_DATA_BYTES = {0x80: 2, 0x90: 2, 0xA0: 2, 0xB0: 2, 0xC0: 1, 0xD0: 1, 0xE0: 2}
_SYSTEM_BYTES = {0xF1: 1, 0xF2: 2, 0xF3: 1}
_META, _SYSEX, _ESCAPE = 0xFF, 0xF0, 0xF7
_END_OF_TRACK, _SET_TEMPO = 0x2F, 0x51


class Event(NamedTuple):
    """A note that begins (`velocity` above 0) or ends, or a change of `tempo`; at a tick."""

    tick: int
    channel: int = 0
    pitch: int = 0
    velocity: int = 0
    tempo: int = 0  # microseconds of a quarter note; 0 for notes


@dataclass
class Events:
    """All events of a file in order, the last tick, and how many ticks a quarter note has."""

    events: list[Event]
    last: int
    ticks_per_beat: float


@dataclass
class _Track:
    events: list[Event] = field(default_factory=list)
    tick: int = 0
    at: int = 0  # the byte after the last event
    has_end: bool = False
    is_whole: bool = True  # whether no event is cut off


def read_events(data: bytes) -> Events:
    """The events of a MIDI file; `BadInput` if it is none, or cut short."""
    start = data.find(b"MThd")  # behind the header of RIFF or MacBinary
    if start < 0 or len(data) < start + 14:
        raise BadInput("not a readable MIDI file: it has no header MThd")
    size, kind, _, division = struct.unpack_from(">IHHH", data, start + 4)
    ticks, timed = _ticks_per_beat(division)
    tracks = list(_tracks(data, start + 8 + max(size, 6)))
    if not tracks:
        raise BadInput("not a readable MIDI file: it has no track")
    merged = _one_after_another(tracks) if kind == 2 else [e for t in tracks for e in t.events]
    last = sum(t.tick for t in tracks) if kind == 2 else max(t.tick for t in tracks)
    kept = [event for event in merged if timed or not event.tempo]
    return Events(sorted(kept, key=lambda event: event.tick), last, ticks)


def _ticks_per_beat(division: int) -> tuple[float, bool]:
    """The ticks of a quarter note, and whether tempi count: not with SMPTE's frames of a second."""
    timed, ticks = not division & 0x8000, float(division)
    if not timed:
        frames = 256 - (division >> 8)
        per_second = (30_000 / 1001 if frames == 29 else frames) * (division & 0xFF)
        ticks = per_second * TEMPO / 1e6
    if not ticks:
        raise BadInput("a MIDI file whose quarter note has no ticks")
    return ticks, timed


def _one_after_another(tracks: list[_Track]) -> list[Event]:
    """The events of format 2, whose tracks are separate sequences."""
    events, start = list[Event](), 0
    for track in tracks:
        events.append(Event(start, tempo=TEMPO))
        events += [event._replace(tick=event.tick + start) for event in track.events]
        start += track.tick
    return events


def _tracks(data: bytes, at: int) -> Iterator[_Track]:
    """Every track, whatever lies between them and how many the header states."""
    while (at := data.find(b"MTrk", at)) >= 0 and at + 8 <= len(data):
        (size,) = struct.unpack_from(">I", data, at + 4)
        track = _track(data, at + 8, size)
        yield track
        at = track.at


def _track(data: bytes, begin: int, size: int) -> _Track:
    """The track at `begin`; its stated size counts only if it fits what is there."""
    end = begin + size
    if end <= len(data):
        track = _read_track(data, begin, end)
        follows = end == len(data) or data[end : end + 4].isalpha()
        if track.has_end or (track.is_whole and follows):
            return track
    track = _read_track(data, begin, len(data))
    if not track.has_end and end > len(data):
        raise BadInput("not a readable MIDI file: cut short within a track")
    if not track.has_end:  # a wrong size, and no end: the next track is the end
        following = data.find(b"MTrk", begin)
        track = _read_track(data, begin, following if following >= 0 else end)
    return track


def _read_track(data: bytes, at: int, end: int) -> _Track:
    track, status = _Track(at=at), 0
    try:
        while at < end and not track.has_end:
            delta, at = _number(data, at, end)
            track.tick += delta
            if data[at] & 0x80:
                code, at = data[at], at + 1
                status = code if code < _SYSEX else status  # kept by meta events, as players do
            else:
                code = status
            at = _event(data, at, end, code, track)
            track.at = at
    except IndexError:
        track.is_whole = False
        track.at = min(at, end)
    return track


def _event(data: bytes, at: int, end: int, code: int, track: _Track) -> int:
    """Add the event whose data begin at `at`; where the next begins."""
    if code == _META:
        return _meta(data, at, end, track)
    if code in {_SYSEX, _ESCAPE}:
        size, begin = _number(data, at, end)
        if begin + size <= end:
            return begin + size
        return data.index(_ESCAPE, at, end) + 1 if _ESCAPE in data[at:end] else end
    if code >= _SYSEX:
        return at + _SYSTEM_BYTES.get(code, 0)
    if not code:
        return at + 1  # a data byte without any status before it
    size = _DATA_BYTES[code & 0xF0]
    if at + size > end:
        raise IndexError
    if code & 0xF0 in {0x80, 0x90}:
        pitch, velocity = min(data[at], 127), min(data[at + 1], 127)
        sounding = velocity if code & 0xF0 == 0x90 else 0
        track.events.append(Event(track.tick, code & 0xF, pitch, sounding))
    return at + size


def _meta(data: bytes, at: int, end: int, track: _Track) -> int:
    kind = data[at]
    size, begin = _number(data, at + 1, end)
    if kind == _END_OF_TRACK:
        track.has_end = True
    elif kind == _SET_TEMPO and size >= 3 and begin + 3 <= end:
        tempo = int.from_bytes(data[begin : begin + 3], "big")
        if tempo:
            track.events.append(Event(track.tick, tempo=tempo))
    if begin + size > end:
        raise IndexError
    return begin + size


def _number(data: bytes, at: int, end: int) -> tuple[int, int]:
    """A number of seven bits a byte, and where it ends."""
    number = 0
    while True:
        if at >= end:
            raise IndexError
        byte, at = data[at], at + 1
        number = (number << 7 | byte & 0x7F) & 0xFFFFFFFF
        if byte < 0x80:
            return number, at
