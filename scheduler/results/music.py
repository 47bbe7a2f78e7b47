"""Texts of notes as files to listen to: MIDI, or WAV by the synthesiser."""

import json
from collections.abc import Callable, Sequence
from pathlib import Path

from db.tables import Member
from scheduler.results.unpack import put, read_samples
from worker.media.samples.wav import write_wav
from worker.music import midi, notes, synthesiser


def _as_wav(piece: notes.Piece) -> bytes:
    return write_wav(synthesiser.play(piece), synthesiser.RATE, {})


PLAYERS: dict[str, Callable[[notes.Piece], bytes]] = {"midi": midi.write_midi, "wav": _as_wav}
SUFFIXES = {"midi": ".mid", "wav": ".wav"}


def write_music(part: Path, members: Sequence[Member], folder: Path, form: str) -> int:
    """Write each text of a shard's object as `000000017.mid` or `.wav`; returns how many.

    Words that are no notes are skipped, and texts without a note left out. Raises `DigestMismatch`.
    """
    written = 0
    for member, data, _ in read_samples(part, members, tar=False):
        piece = notes.read(json.loads(data)["text"])
        if piece.notes:
            put(folder / f"{member.sample:09d}{SUFFIXES[form]}", PLAYERS[form](piece))
            written += 1
    return written
