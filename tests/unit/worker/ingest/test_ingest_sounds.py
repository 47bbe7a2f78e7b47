"""Folders and zips of WAV files, turned into dataset versions."""

import zipfile
from pathlib import Path

import numpy as np
import pytest

from db.errors import BadInput
from worker.cleaning.recipe import Recipe
from worker.data.dataset import TEST, TRAIN, VALIDATION, LocalDataset
from worker.ingest.ingest import Ingested, ingest
from worker.media.samples.wav import write_wav
from worker.source_files import members


def sound(seed: int, length: int = 100, rate: int = 8000) -> bytes:
    samples = np.random.default_rng(seed).integers(-9000, 9000, length).astype(np.int16)
    return write_wav(samples, rate, {})


def samples_of(data: bytes) -> np.ndarray:
    return np.frombuffer(data[44:-12], np.int16)


def write_zip(path: Path, files: dict[str, bytes]) -> Path:
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, data in files.items():
            archive.writestr(name, data)
    return path


def taken(files: dict[str, bytes], tmp_path: Path, **options) -> tuple[Ingested, LocalDataset]:
    path = write_zip(tmp_path / "sounds.zip", files)
    return ingest(path, tmp_path / "out", Recipe(**options)), LocalDataset(tmp_path / "out")


def stored(dataset: LocalDataset) -> list[np.ndarray]:
    offsets = dataset.array("offsets")
    return np.split(np.asarray(dataset.array("sounds")), offsets[1:-1])


def test_sounds_of_any_length_are_kept_in_a_row_with_where_each_begins(tmp_path):
    files = {f"{n}.wav": sound(n, 50 + n) for n in range(10)}
    result, dataset = taken(files, tmp_path)
    assert result.manifest["kind"] == "audio"
    assert result.manifest["shape"]["sample_rate"] == 8000
    assert result.manifest["labels"] == []
    assert dataset.array("sounds").dtype == np.int16
    assert dataset.array("offsets").tolist() == np.cumsum([0, *range(50, 60)]).tolist()
    for kept, data in zip(stored(dataset), files.values(), strict=True):
        assert (kept == samples_of(data)).all()
    assert len(dataset.array("split")) == 10
    assert not (dataset.folder / "labels.npy").exists()


def test_sub_folders_are_labels_and_folders_called_train_and_validation_are_splits(tmp_path):
    files = {
        f"{split}/{label}/{n}.wav": sound(n)
        for split, count in (("train", 8), ("validation", 3))
        for label in ("cat", "dog")
        for n in range(count)
    }
    result, dataset = taken(files, tmp_path, split=(100, 0, 0))
    assert result.manifest["labels"] == ["cat", "dog"]
    assert result.manifest["counts"] == {"train": 16, "validation": 6, "test": 0}
    assert dataset.array("labels").tolist() == [0] * 8 + [1] * 8 + [0] * 3 + [1] * 3
    assert dataset.array("split").tolist() == [TRAIN] * 16 + [VALIDATION] * 6


def test_labels_come_from_names_like_those_of_the_free_spoken_digits(tmp_path):
    names = [f"{digit}_{who}_{take}" for digit in (10, 2) for who in "ab" for take in (0, 1)]
    files = {f"{name}.wav": sound(n) for n, name in enumerate(names)}
    result, dataset = taken(files, tmp_path)
    assert result.manifest["labels"] == ["2", "10"]
    assert dataset.array("labels").tolist() == [1] * 4 + [0] * 4


def test_names_give_labels_inside_the_folders_of_splits_too(tmp_path):
    names = [
        f"{split}/{digit}_x_{n}.wav" for split in ("train", "test") for digit in "01" for n in "ab"
    ]
    result, dataset = taken({name: sound(n) for n, name in enumerate(names)}, tmp_path)
    assert result.manifest["labels"] == ["0", "1"]
    assert (dataset.array("split") == TEST).sum() == 4


@pytest.mark.parametrize(
    "names",
    [
        ["take_1", "take_2", "take_3"],
        ["cat_1", "cat_2", "dog_1"],
        ["cat_1", "cat_2", "dog_1", "dog_2", "intro"],
    ],
    ids=["one head", "a head of one file", "a name without a head"],
)
def test_other_names_give_no_labels(tmp_path, names):
    result, _ = taken({f"{name}.wav": sound(n) for n, name in enumerate(names)}, tmp_path)
    assert result.manifest["labels"] == []


def test_a_bad_file_among_good_ones_is_reported_and_left_out(tmp_path):
    files = {
        "cat/good.wav": sound(1),
        "cat/silent.wav": write_wav(np.zeros(80, np.int16), 8000, {}),
        "cat/cut.wav": sound(2)[:-60],
        "cat/empty.wav": b"",
        "cat/other.wav": sound(3, rate=44_100),
        "dog/good.wav": sound(4),
        "dog/song.mp3": b"ID3",
        "stray.wav": sound(5),
        "../evil.wav": sound(6),
        ".hidden.wav": b"",
    }
    result, dataset = taken(files, tmp_path, resample=False)
    assert len(dataset.array("labels")) == 3
    reasons = {reject.name: reject.reason for reject in result.rejects}
    assert result.manifest["rejected"] == len(reasons) == 6
    assert "are missing" in reasons["cat/cut.wav"]
    assert reasons["cat/empty.wav"] == "empty"
    assert "44,100 Hz, while most have 8,000; leave out --no-res" in reasons["cat/other.wav"]
    assert "cannot be read as a sound: Format not recognised" in reasons["dog/song.mp3"]
    assert "in none of them" in reasons["stray.wav"]
    assert "leads out of the archive" in reasons["../evil.wav"]


def test_damaged_files_and_notes_beside_the_folders_of_splits_are_mere_rejects(tmp_path):
    files = {f"{split}/{n}.wav": sound(n) for split in ("train", "test") for n in range(4)}
    result, _ = taken(files | {"broken.wav": b"RIFF", "README.md": b"about"}, tmp_path)
    assert {reject.name for reject in result.rejects} == {"broken.wav", "README.md"}
    assert result.manifest["counts"]["test"] == 4


def test_equal_sounds_never_straddle_two_splits(tmp_path):
    files = {f"{n}.wav": sound(n % 10) for n in range(60)}
    _, dataset = taken(files, tmp_path, split=(50, 25, 25))
    seen = {
        (each.tobytes(), code)
        for each, code in zip(stored(dataset), dataset.array("split"), strict=True)
    }
    assert len(seen) == 10


def test_a_folder_and_a_zip_of_it_hold_the_same_sounds(tmp_path):
    files = {f"set/{n}/{i}.wav": sound(10 * n + i) for n in (1, 2) for i in range(5)}
    for name, data in files.items():
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_bytes(data)
    zipped = ingest(write_zip(tmp_path / "set.zip", files), tmp_path / "one").manifest
    assert zipped["objects"] == ingest(tmp_path / "set", tmp_path / "two").manifest["objects"]


def test_a_sound_that_is_too_large_is_left_out(tmp_path, monkeypatch):
    monkeypatch.setattr(members, "MAX_MEMBER_BYTES", 1000)
    result, _ = taken({"a.wav": sound(1), "b.wav": sound(2, 1000)}, tmp_path)
    assert [reject.name for reject in result.rejects] == ["b.wav"]


def test_sounds_are_told_from_pictures_by_the_kind_asked_for(tmp_path):
    path = write_zip(tmp_path / "mixed.zip", {"a.wav": sound(1), "a.png": b"no picture"})
    assert ingest(path, tmp_path / "out", Recipe(kind="audio")).manifest["kind"] == "audio"
    with pytest.raises(BadInput, match=r"no usable files, only \.png, \.wav"):
        ingest(path, tmp_path / "text", Recipe(kind="text"))


def test_spoken_digits_are_taken_as_they_are(shared_data, tmp_path):
    result = ingest(shared_data / "spoken-digits.zip", tmp_path / "out")
    assert sum(result.manifest["counts"].values()) == 1000
    assert result.manifest["labels"] == [str(digit) for digit in range(10)]
    assert result.manifest["rejected"] == 0
