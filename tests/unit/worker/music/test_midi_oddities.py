"""MIDI files with the oddities of real programs, made from the format's specification."""

import itertools
import struct
from collections.abc import Iterator

import pytest

from db.errors import BadInput
from worker.music.midi import midi_to_text
from worker.music.midi_events import read_events

TICKS = 480
TEXT = "t120 60:4 62:4"
NOTES = bytes.fromhex("00903c40 8360 803c40 00903e40 8360 803e40")  # 60 and 62, a quarter each
END = b"\0\xff\x2f\0"
FAST = bytes.fromhex("00ff510303d090")  # 240 quarter notes a minute


def number(value: int) -> bytes:
    parts = [value & 0x7F]
    while value := value >> 7:
        parts.append(value & 0x7F | 0x80)
    return bytes(reversed(parts))


def header(kind: int = 1, tracks: int = 1, division: int = TICKS, extra: bytes = b"") -> bytes:
    return b"MThd" + struct.pack(">IHHH", 6 + len(extra), kind, tracks, division) + extra


def track(*events: bytes, size: int | None = None, name: bytes = b"MTrk") -> bytes:
    data = b"".join(events)
    return name + struct.pack(">I", len(data) if size is None else size) + data


def meta(kind: int, data: bytes = b"", length: int | None = None) -> bytes:
    return b"\0\xff" + bytes([kind]) + number(len(data) if length is None else length) + data


def sysex(data: bytes, mark: int = 0xF0) -> bytes:
    return b"\0" + bytes([mark]) + number(len(data)) + data


GOOD = header() + track(NOTES, END)
ONE = bytes.fromhex("00903c40 8360 803c40")
OTHER = bytes.fromhex("00903e40 8360 803e40")
LATER = bytes.fromhex("8360903e40 8360 803e40")


def structures() -> Iterator[tuple[str, bytes]]:
    """What lies around the events."""
    yield "format 0", header(0) + track(NOTES, END)
    yield "format 1", GOOD
    yield "format 1, tempo track", header(1, 2) + track(meta(3, b"tempo"), END) + track(NOTES, END)
    yield "format 2 of one track", header(2) + track(NOTES, END)
    yield "format 2, one after another", header(2, 2) + track(ONE, END) + track(OTHER, END)
    yield "format 7", header(7) + track(NOTES, END)
    for count in (0, 2, 99, 0xFFFF):
        yield f"{count} tracks stated", header(tracks=count) + track(NOTES, END)
    yield "format 0 with two tracks", header(0, 2) + track(meta(3, b"x"), END) + track(NOTES, END)
    yield "a longer header", header(extra=b"more") + track(NOTES, END)
    yield (
        "a header that claims too little",
        b"MThd" + struct.pack(">IHHH", 0, 1, 1, TICKS) + track(NOTES, END),
    )
    wrapped = b"RMID" + b"data" + struct.pack("<I", len(GOOD)) + GOOD
    yield "RIFF", b"RIFF" + struct.pack("<I", len(wrapped)) + wrapped
    listed = b"RMID" + b"LIST" + struct.pack("<I", 4) + b"INFO" + wrapped[4:]
    yield "RIFF with LIST first", b"RIFF" + struct.pack("<I", len(listed)) + listed
    yield "MacBinary", b"\0\x07old.mid" + bytes(119) + GOOD
    yield "an unknown chunk first", header() + track(b"hidden", name=b"XFIH") + track(NOTES, END)
    yield "an unknown chunk last", GOOD + track(b"hidden", name=b"XFKM")
    yield (
        "an unknown chunk with a wrong size",
        header() + track(b"x", name=b"Junk", size=500) + track(NOTES, END),
    )
    yield "garbage between", header() + b"\0\0garbage" + track(NOTES, END)
    yield "garbage at the end", GOOD + b"\0\x1a\0 written by a shareware program"
    yield "zeros at the end", GOOD + bytes(300)
    yield "a text file's end", GOOD + b"\x1a"
    for size in (0, 1, 5, 9, 0x7FFFFFFF, 0xFFFFFFFF):
        yield f"a track of stated size {size}", header() + track(NOTES, END, size=size)
    short = track(ONE, END, size=3) + track(LATER, END)
    yield "a stated size too small, and another track", header(1, 2) + short
    yield (
        "a stated size too large, and another track",
        (header(1, 2) + track(ONE, END, size=33) + track(LATER, END)),
    )
    yield "no end of track", header() + track(NOTES)
    yield "no end of track, garbage behind", header() + track(NOTES) + b"\1\2\3"
    yield "no end of the first track", header(1, 2) + track(meta(3, b"a")) + track(NOTES, END)
    yield "an empty track", header(1, 2) + track() + track(NOTES, END)
    yield "events behind the end", header() + track(NOTES, END, bytes.fromhex("00904040"))
    yield "an end that is late", header() + track(NOTES, b"\x60\xff\x2f\0")
    yield "an end far off", header() + track(NOTES, b"\xff\xff\xff\x7f\xff\x2f\0")
    yield "an end of odd length", header() + track(NOTES, b"\0\xff\x2f\x01\0")
    for ticks in (1, 24, 96, 960, 15_360):
        quarter = number(ticks)
        notes = (
            b"\0\x90\x3c\x40" + quarter + b"\x80\x3c\x40\0\x90\x3e\x40" + quarter + b"\x80\x3e\x40"
        )
        yield f"{ticks} ticks", header(division=ticks) + track(notes, END)
    for frames, ticks in ((24, 4), (25, 40), (30, 80), (24, 8), (25, 8)):
        half = number(frames * ticks // 2)  # seconds, a quarter note at 120
        notes = b"\0\x90\x3c\x40" + half + b"\x80\x3c\x40\0\x90\x3e\x40" + half + b"\x80\x3e\x40"
        division = (256 - frames) << 8 | ticks
        yield (
            f"SMPTE {frames} frames of {ticks}",
            header(division=division) + track(FAST, notes, END),
        )
    drop = number(round(30_000 / 1001 * 40 / 2))
    notes = b"\0\x90\x3c\x40" + drop + b"\x80\x3c\x40\0\x90\x3e\x40" + drop + b"\x80\x3e\x40"
    yield "SMPTE 29.97", header(division=(256 - 29) << 8 | 40) + track(notes, END)


def events() -> Iterator[tuple[str, bytes]]:
    """What lies among the notes."""
    run = bytes.fromhex("00903c40 8360 3c00 00 3e40 8360 3e00")
    yield "running status", track(run, END)
    yield "running status over meta", track(run[:8], meta(1, b"la"), run[8:], END)
    yield "running status over sysex", track(run[:8], sysex(b"\x41\x10\xf7"), run[8:], END)
    yield "running status over a clock", track(run[:8], b"\0\xf8", run[8:], END)
    yield "a data byte without status", track(b"\0\x40", NOTES, END)
    yield "two data bytes without status", track(b"\0\x40\0\x41", NOTES, END)
    for name, data in {
        "empty": b"", "short": b"\x7e\x7f\x09\x01\xf7", "long": b"\x41" * 5000 + b"\xf7",
        "without an end": b"\x41\x10\x42", "with a note inside": b"\x90\x40\x40\xf7",
    }.items():  # fmt: skip
        yield f"sysex {name}", track(sysex(data), NOTES, END)
        yield f"escaped sysex {name}", track(sysex(data, 0xF7), NOTES, END)
    yield "sysex in parts", track(sysex(b"\x43\x12"), sysex(b"\x43\xf7", 0xF7), NOTES, END)
    yield "sysex without a length", track(b"\0\xf0\x7e\x7f\x09\x01\xf7", NOTES, END)
    for kind in (0x00, 0x01, 0x02, 0x03, 0x05, 0x06, 0x20, 0x21, 0x54, 0x58, 0x59, 0x7F, 0x60):
        yield f"meta {kind:02x} empty", track(meta(kind), NOTES, END)
        yield f"meta {kind:02x} of odd length", track(meta(kind, b"\x01\x02\x03\xff"), NOTES, END)
        yield f"meta {kind:02x} long", track(meta(kind, b"\xe9" * 300), NOTES, END)
    yield "a key signature of 99 sharps", track(meta(0x59, b"\x63\x07"), NOTES, END)
    yield "a time signature of nothing", track(meta(0x58, b"\0\xff\0\0"), NOTES, END)
    yield "a name that is not text", track(meta(3, b"\xff\xfe\x82\xb1"), NOTES, END)
    yield "a tempo of zero", track(meta(0x51, b"\0\0\0"), NOTES, END)
    yield "a tempo of two bytes", track(meta(0x51, b"\x07\xa1"), NOTES, END)
    yield "a tempo of four bytes", track(meta(0x51, b"\x07\xa1\x20\0"), NOTES, END)
    yield "a length in five bytes", track(b"\0\xff\x01\x80\x80\x80\x80\x02la", NOTES, END)
    yield "a time in many bytes", track(b"\x80\x80\x80\x80" + NOTES, END)
    yield "undefined status f4", track(b"\0\xf4", NOTES, END)
    yield "undefined status fd", track(b"\0\xfd", NOTES, END)
    yield "song position", track(b"\0\xf2\x01\x02", NOTES, END)
    yield "song select", track(b"\0\xf3\x01", NOTES, END)
    yield "time code", track(b"\0\xf1\x01", NOTES, END)
    for kind, size in ((0xA0, 2), (0xB0, 2), (0xC0, 1), (0xD0, 1), (0xE0, 2)):
        control = b"\0" + bytes([kind, *([0x40] * size)])
        yield f"control {kind:02x}", track(control, ONE, control, OTHER, END)
        yield (
            f"control {kind:02x} beyond 127",
            track(b"\0" + bytes([kind, *([0xC8] * size)]), NOTES, END),
        )
    yield "a velocity beyond 127", track(NOTES.replace(b"\x90\x3c\x40", b"\x90\x3c\xc8"), END)
    yield "drums", track(bytes.fromhex("0099244000 992440 00892400"), NOTES, END)
    yield "a note that ends twice", track(ONE, b"\0\x80\x3c\x40", OTHER, END)
    yield "a note that never began", track(b"\0\x80\x50\x40", NOTES, END)
    yield "a note left hanging", track(NOTES[:-5], b"\x83\x60\xff\x2f\0")
    yield "a note left hanging without an end", track(NOTES[:-5], b"\x83\x60\xff\x01\x02la")
    yield (
        "a note on another channel",
        track(ONE, OTHER.replace(b"\x90", b"\x91").replace(b"\x80", b"\x81"), END),
    )
    yield "ends by velocity zero", track(run, END)
    yield "silence first", track(b"\x8f\x00\xb0\x07\x40", NOTES, END)


ODDITIES = [*structures(), *((name, header() + data) for name, data in events())]


@pytest.mark.parametrize("data", [d for _, d in ODDITIES], ids=[name for name, _ in ODDITIES])
def test_the_notes_are_found(data: bytes) -> None:
    assert midi_to_text(data) == TEXT


def test_there_are_more_than_a_hundred() -> None:
    assert len(ODDITIES) > 100
    assert len({name for name, _ in ODDITIES}) == len(ODDITIES)


@pytest.mark.parametrize(
    ("data", "complaint"),
    [
        (b"", "no header MThd"),
        (b"a text", "no header MThd"),
        (header(), "no track"),
        (header() + track(NOTES, END)[:-8], "cut short within a track"),
        (header(division=0) + track(NOTES, END), "no ticks"),
        (header(division=0xE700) + track(NOTES, END), "no ticks"),
        (header() + track(END), "no pitched notes"),
    ],
)
def test_what_holds_no_whole_piece_is_refused_with_the_reason(data: bytes, complaint: str) -> None:
    with pytest.raises(BadInput, match=complaint):
        midi_to_text(data)


def test_the_tempo_of_a_sequence_in_format_2_ends_with_it() -> None:
    data = header(2, 2) + track(FAST, ONE, END) + track(OTHER, END)
    assert midi_to_text(data) == "t240 60:4 t120 62:4"


def test_long_files_are_read_in_time_of_their_length() -> None:
    data = header() + track(*itertools.repeat(NOTES, 20_000), END)
    assert len(read_events(data).events) == 80_000
