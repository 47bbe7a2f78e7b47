"""Notes as text: the language, MIDI both ways, and what they sound like."""

import zipfile
from contextlib import suppress
from io import BytesIO
from pathlib import Path

import mido
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from db.errors import BadInput
from tests.tunes import TUNES
from worker.cleaning.recipe import Recipe
from worker.data.dataset import LocalDataset
from worker.ingest.ingest import ingest
from worker.music import midi, notes, synthesiser
from worker.music.notes import LONGEST, Note, Piece, piece_of

NOTES = st.lists(
    st.builds(Note, st.integers(0, 200), st.integers(0, 127), st.integers(1, 150)), min_size=1
)
TEMPI = st.dictionaries(st.integers(0, 200), st.integers(20, 300), max_size=4)
WORDS = st.lists(
    st.one_of(
        st.sampled_from(["60:4", "60_:4", "64+67:2", "60_+64:3", "r:4", "t90", "t999", "128:4"]),
        st.text(max_size=8),
    )
)


@given(NOTES, TEMPI)
def test_what_is_written_reads_as_the_same_piece(some: list[Note], tempi: dict[int, int]) -> None:
    piece = piece_of(some, tempi)
    assert notes.read(notes.write(piece)) == piece


@settings(max_examples=40)
@given(WORDS)
def test_every_text_can_be_read_and_written_again(words: list[str]) -> None:
    piece = notes.read(" ".join(words))
    assert notes.read(notes.write(piece)) == piece
    for one, other in zip(piece.notes, piece.notes[1:], strict=False):
        assert one < other
    midi.write_midi(piece)


@pytest.mark.parametrize("text", TUNES.values(), ids=TUNES)
def test_a_tune_survives_text_to_midi_to_text(text: str) -> None:
    assert midi.midi_to_text(midi.write_midi(notes.read(text))) == text


@given(NOTES)
def test_notes_survive_midi_but_for_silence_before_them(some: list[Note]) -> None:
    begin = min(note.start for note in some)
    piece = piece_of([Note(n.start - begin, n.pitch, n.length) for n in some], {0: 90})
    assert midi.read_midi(midi.write_midi(piece)) == piece


def test_words_mean_what_the_language_says() -> None:
    piece = notes.read("t90 60:4 r:2 60_+64:4 64_+67:2 t140 67_:1 67:1")
    assert piece.notes == (
        Note(0, 60, 4),
        Note(6, 60, 4),  # nothing sounded just before, so nothing is held on
        Note(6, 64, 6),
        Note(10, 67, 3),
        Note(13, 67, 1),
    )
    assert piece.tempi == ((0, 90), (12, 140))
    assert piece.length == 14


@pytest.mark.parametrize(
    "word",
    ["128:4", "60:0", "60:65", "60", ":4", "60:4:4", "60+:4", "r+60:4", "t19", "t301", "x", "-1:4",
     "60:٤", "_60:4", "<|unknown|>"],
)  # fmt: skip
def test_what_is_no_word_is_skipped(word: str) -> None:
    assert notes.read(f"60:4 {word} 62:4") == notes.read("60:4 62:4")
    assert notes.read(word) == Piece(())


def test_what_lasts_longer_than_a_word_is_held_on() -> None:
    text = notes.write(piece_of([Note(0, 60, 2 * LONGEST + 3), Note(200, 62, 1)], {}))
    assert text == "t120 60:64 60_:64 60_:3 r:64 r:5 62:1"


def played(*messages: mido.Message, ticks: int = 480, kind: int = 1) -> bytes:
    """A MIDI file of one track."""
    file = mido.MidiFile(type=kind, ticks_per_beat=ticks)
    file.tracks.append(mido.MidiTrack(messages))
    target = BytesIO()
    file.save(file=target)
    return target.getvalue()


def on(pitch: int, time: int = 0, **given: int) -> mido.Message:
    return mido.Message("note_on", note=pitch, time=time, **given)


def off(pitch: int, time: int = 0) -> mido.Message:
    return mido.Message("note_off", note=pitch, time=time)


def test_rhythm_is_rounded_to_sixteenths_and_silence_before_is_cut() -> None:
    data = played(on(60, 960), off(60, 130), on(62, 4), off(62, 233), on(64, 0), off(64, 3))
    assert midi.midi_to_text(data) == "t120 60:1 62:2 64:1"


def test_a_key_struck_again_begins_anew_and_one_never_released_ends_with_the_file() -> None:
    data = played(on(60), on(60, 480), on(64, 480), on(60, 480, velocity=0))
    assert midi.midi_to_text(data) == "t120 60:4 60:4 60_+64:4"


def test_drums_are_left_out() -> None:
    data = played(on(36, channel=9), on(60), off(60, 480))
    assert midi.midi_to_text(data) == "t120 60:4"
    with pytest.raises(BadInput, match="no pitched notes"):
        midi.read_midi(played(on(36, channel=9)))


def test_a_change_of_tempo_waits_for_the_next_note() -> None:
    slow, slower = (
        mido.MetaMessage("set_tempo", tempo=mido.bpm2tempo(bpm), time=time)
        for bpm, time in ((60, 0), (15, 240))
    )
    data = played(slow, on(60), slower, off(60, 240), on(62), off(62, 480))
    assert midi.midi_to_text(data) == "t60 60:4 t20 62:4"


GOOD = midi.write_midi(notes.read(TUNES["twinkle"]))


@pytest.mark.parametrize(
    ("data", "complaint"),
    [
        (b"", "not a readable MIDI file"),
        (b"RIFF of something else", "not a readable MIDI file"),
        (GOOD[:60], "not a readable MIDI file"),
        (played(on(60), off(60, 2**27)), "longer than 100,000 sixteenths"),
    ],
)
def test_a_file_that_gives_no_piece_is_refused_with_the_reason(data: bytes, complaint: str) -> None:
    with pytest.raises(BadInput, match=complaint):
        midi.read_midi(data)


@given(st.integers(14, len(GOOD) - 1), st.integers(0, 255))
def test_a_damaged_byte_never_ends_in_a_traceback(place: int, byte: int) -> None:
    with suppress(BadInput):
        assert midi.read_midi(GOOD[:place] + bytes([byte]) + GOOD[place + 1 :]).notes


def test_a_folder_of_midi_files_becomes_a_dataset_of_texts(tmp_path: Path) -> None:
    source = tmp_path / "source"
    (source / "old").mkdir(parents=True)
    for name, text in TUNES.items():
        (source / "old" / f"{name}.mid").write_bytes(midi.write_midi(notes.read(text)))
    (source / "broken.MID").write_bytes(GOOD[:50])
    (source / "README.txt").write_text("old tunes")
    with zipfile.ZipFile(tmp_path / "tunes.zip", "w") as archive:
        for file in source.rglob("*.*"):
            archive.write(file, str(file.relative_to(source)))
    for number, path in enumerate((source, tmp_path / "tunes.zip")):
        taken = ingest(path, tmp_path / f"out{number}", Recipe(split=(50, 25, 25)))
        dataset = LocalDataset(tmp_path / f"out{number}")
        found = [row["text"] for split in range(3) for row in dataset.documents(split)]
        assert sorted(found) == sorted(TUNES.values())
        assert taken.manifest["kind"] == "text"
        reasons = {reject.name: reject.reason for reject in taken.rejects}
        assert "not a readable MIDI file" in reasons.pop("broken.MID")
        assert reasons == {"README.txt": "its name ends in none of .kar, .mid, .midi, .rmi, .smf"}


def loudest(sound: np.ndarray) -> float:
    """The frequency with the most power in some samples, in Hz."""
    windowed = sound * np.hanning(len(sound))
    power = np.abs(np.fft.rfft(windowed, 8 * len(sound)))
    return float(power.argmax()) * synthesiser.RATE / (8 * len(sound))


def test_each_note_is_heard_at_its_pitch_and_time() -> None:
    piece = notes.read("t120 69:4 r:4 t60 57:4 81:4")
    sound = synthesiser.play(piece).astype(float)
    assert sound.dtype == float
    rate = synthesiser.RATE
    for start, length, hertz in ((0, 0.5, 440), (1, 1, 220), (2, 1, 880)):
        heard = sound[int(start * rate) : int((start + length) * rate)]
        assert loudest(heard) == pytest.approx(hertz, rel=0.01)
    assert np.abs(sound[int(0.6 * rate) : int(0.99 * rate)]).max() == 0
    assert len(sound) == pytest.approx(3.05 * rate, abs=2)
    assert np.abs(sound).max() == pytest.approx(0.8 * 32767, abs=1)


def test_a_chord_is_heard_with_all_its_pitches() -> None:
    sound = synthesiser.play(notes.read("t60 60+64+67:16")).astype(float)
    power = np.abs(np.fft.rfft(sound * np.hanning(len(sound))))
    hertz = np.fft.rfftfreq(len(sound), 1 / synthesiser.RATE)
    quiet = power[(hertz > 200) & (hertz < 250)].max()
    for pitch in (60, 64, 67):
        near = np.abs(hertz - synthesiser.frequency(pitch)) < 3
        assert power[near].max() > 20 * quiet


def test_what_is_very_long_or_high_is_played_within_limits(monkeypatch) -> None:
    monkeypatch.setattr(synthesiser, "MAX_S", 5)
    assert len(synthesiser.play(notes.read("t60 " + "127:7 " * 14))) == 5 * synthesiser.RATE
    assert len(synthesiser.play(Piece(()))) < synthesiser.RATE
