"""Models that learn tunes as text, and what they make of them played."""

import json
from io import BytesIO
from pathlib import Path

import numpy as np
import pytest
import torch

from tests.families.kit import Recorder, small_training
from tests.tunes import TUNES
from worker.data.dataset import LocalDataset
from worker.engine.train import train
from worker.engine.weights import load
from worker.families import find_family
from worker.media.samples.wav import write_wav
from worker.media.sources.wav_files import read_wav
from worker.music import midi, notes, synthesiser
from worker.music.notes import Piece
from worker.networks.network import Draw, Row

SCALE = {60, 62, 64, 65, 67, 69}  # the notes of the tune
MODELS = {
    "hmm": (
        {"states": 48, "batch_size": 1000, "context": 64, "tokenizer": "words"}
        | {"restarts": 4, "prior": 0.001},
        40,
    ),
    "rnn": ({"width": 64, "context": 64, "batch_size": 8, "tokenizer": "words"}, 100),
}


def tune_dataset(folder: Path) -> LocalDataset:
    """The same tune in every document."""
    folder.mkdir()
    rows = [{"split": split, "text": TUNES["twinkle"]} for split in (0, 0, 0, 1)]
    lines = "".join(json.dumps(row) + "\n" for row in rows)
    (folder / "documents.jsonl").write_text(lines, "utf-8")
    (folder / "manifest.json").write_text('{"kind": "text"}', "utf-8")
    return LocalDataset(folder)


@pytest.mark.parametrize("name", MODELS)
def test_a_model_learns_a_tune_that_can_be_heard(name: str, tmp_path: Path) -> None:
    family, (params, steps) = find_family(name), MODELS[name]
    dataset = tune_dataset(tmp_path / "dataset")
    asked = small_training(
        family, dataset, tmp_path / "run", params=params, max_steps=steps, seed=1
    )
    network = load(train(asked, Recorder()).folder, device=torch.device("cpu"))[1]
    sampling = family.sampling(max_tokens=100, micro_batch=4)
    rows = [Row(index) for index in range(4)]
    texts = network.sample(rows, Draw([(5, i) for i in range(4)]), sampling)
    pieces = [notes.read(str(text)) for text in texts]
    pitches = [note.pitch for piece in pieces for note in piece.notes]
    assert len(pitches) > 40
    assert np.mean([pitch in SCALE for pitch in pitches]) > 0.9
    for piece in pieces:
        again = midi.read_midi(midi.write_midi(piece))
        assert [note.pitch for note in again.notes] == [note.pitch for note in piece.notes]
        assert_heard(piece)


def assert_heard(piece: Piece) -> None:
    """Each note of a melody is the loudest sound in its time, in the WAV file of the piece."""
    data = write_wav(synthesiser.play(piece), synthesiser.RATE, {})
    rate, sound = read_wav(BytesIO(data))
    sixteenth = 15 / piece.tempi[0][1]
    for note in piece.notes[:5]:
        first, last = (round(at * sixteenth * rate) for at in (note.start, note.end))
        heard = sound[first:last] * np.hanning(last - first)
        power = np.abs(np.fft.rfft(heard, 4 * len(heard)))
        hertz = power.argmax() * rate / (4 * len(heard))
        assert hertz == pytest.approx(synthesiser.frequency(note.pitch), rel=0.02)
