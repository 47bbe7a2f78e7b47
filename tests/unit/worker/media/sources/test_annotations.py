"""Captions and labels of pictures from the files beside them."""

import io
import json
import zipfile
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from db.errors import BadInput, Refused
from worker.cache import Cache
from worker.data.dataset import TEST, LocalDataset
from worker.data.versions import fetch, publish, summary
from worker.feeds.images import CaptionFeed
from worker.ingest.ingest import Ingested, ingest
from worker.media.sources import annotations, tables
from worker.store.folder import FolderStore


def picture(shade: int) -> bytes:
    buffer = io.BytesIO()
    Image.new("L", (32, 32), shade).save(buffer, "PNG")
    return buffer.getvalue()


def lines(**texts: str) -> bytes:
    """Lines for files a.png, b.png and so on."""
    rows = ({"file_name": f"{name}.png", "text": text} for name, text in texts.items())
    return "".join(json.dumps(row) + "\n" for row in rows).encode()


def archive(path: Path, files: dict[str, bytes]) -> Path:
    with zipfile.ZipFile(path, "w") as target:
        for name, data in files.items():
            target.writestr(name, data)
    return path


def taken(tmp_path: Path, files: dict[str, bytes]) -> tuple[Ingested, LocalDataset]:
    source = archive(tmp_path / "set.zip", files)
    return ingest(source, tmp_path / "out"), LocalDataset(tmp_path / "out")


def found(dataset: LocalDataset) -> dict[int, str]:
    """Each image's shade and caption."""
    shades = dataset.array("images")[:, 0, 0, 0].tolist()
    return dict(zip(shades, dataset.captions(), strict=True))


def reasons(result: Ingested) -> dict[str, str]:
    return {reject.name: reject.reason for reject in result.rejects}


def test_captions_follow_their_images(tmp_path):
    files = {"b.png": picture(2), "a.png": picture(1), "metadata.jsonl": lines(a="one", b="two")}
    result, dataset = taken(tmp_path, files)
    assert found(dataset) == {1: "one", 2: "two"}
    assert result.rejects == []
    assert "captions.jsonl" in [entry["name"] for entry in result.manifest["objects"]]
    assert summary(result.manifest)["captions"] is True


def test_a_folder_and_a_zip_of_it_hold_the_same_captions(tmp_path):
    files = {f"{name}.png": picture(ord(name)) for name in "abc"}
    files["metadata.jsonl"] = lines(a="ein Bär", b="两只鸟", c="three")
    folder = tmp_path / "folder"
    folder.mkdir()
    for name, data in files.items():
        (folder / name).write_bytes(data)
    one = ingest(folder, tmp_path / "one").manifest
    two = ingest(archive(tmp_path / "set.zip", files), tmp_path / "two").manifest
    assert one["objects"] == two["objects"]
    assert found(LocalDataset(tmp_path / "one"))[ord("b")] == "两只鸟"


def test_each_folder_may_hold_its_own_lines_and_splits_keep_their_meaning(tmp_path):
    files = {
        **{f"train/{name}.png": picture(ord(name)) for name in "abcdefgh"},
        "train/metadata.jsonl": lines(**{name: f"train {name}" for name in "abcdefgh"}),
        "test/a.png": picture(1),
        "test/metadata.jsonl": lines(a="a test"),
    }
    result, dataset = taken(tmp_path, files)
    assert found(dataset)[1] == "a test"
    assert found(dataset)[ord("c")] == "train c"
    assert result.manifest["counts"]["test"] == 1
    assert dataset.array("images")[dataset.array("split") == TEST][0, 0, 0, 0] == 1


def test_lines_may_name_files_in_sub_folders_whose_names_are_labels(tmp_path):
    rows = [
        {"file_name": f"{label}/{i}.png", "text": f"{label} number {i}"}
        for label in ("cat", "dog")
        for i in range(3)
    ]
    files = {row["file_name"]: picture(i) for i, row in enumerate(rows)}
    files["metadata.jsonl"] = "\n".join(map(json.dumps, rows)).encode()
    result, dataset = taken(tmp_path, files)
    assert result.manifest["labels"] == ["cat", "dog"]
    assert found(dataset)[4] == "dog number 1"
    assert dataset.array("labels").tolist() == [0, 0, 0, 1, 1, 1]


def test_what_is_wrong_with_a_line_is_reported_by_its_number(tmp_path):
    bad = [
        b"{not json",
        b'{"file_name": "a.png", "text": "\xff"}',
        b'{"file_name": "a.png"}',
        b'{"text": "nothing"}',
        b'["a.png", "a list"]',
        json.dumps({"file_name": "a.png", "text": "x" * 5000}).encode(),
        b'{"file_name": "a.png", "text": "\\ud800"}',
        b'{"file_name": "../../etc/passwd", "text": "out"}',
        b'{"file_name": "c.png", "text": "absent"}',
        b"",
        b'{"file_name": "a.png", "text": "  good  "}',
        b'{"file_name": "a.png", "text": "again"}',
        b"[" * 100_000,
    ]
    result, dataset = taken(
        tmp_path, {"a.png": picture(1), "b.png": picture(2), "metadata.jsonl": b"\n".join(bad)}
    )
    assert found(dataset) == {1: "good"}
    expected = {
        1: "not JSON",
        2: "not UTF-8: byte 0xff",
        3: 'no "text"',
        4: 'no "file_name"',
        5: 'no "file_name"',
        6: "5,000 characters; use at most 4,096",
        7: "surrogate",
        8: "no file ../../etc/passwd",
        9: "no file c.png",
        12: "a.png already has a caption from metadata.jsonl line 11",
        13: "not JSON",
    }
    said = reasons(result)
    assert "no caption is given for it" in said.pop("b.png")
    assert said.keys() == {f"metadata.jsonl line {number}" for number in expected}
    for number, reason in expected.items():
        assert reason in said[f"metadata.jsonl line {number}"]
    assert result.manifest["rejected"] == len(expected) + 1


def test_a_line_that_is_too_long_is_left_out(tmp_path, monkeypatch):
    monkeypatch.setattr(tables, "MAX_LINE", 100)
    files = {"a.png": picture(1), "metadata.jsonl": lines(a="one") + lines(b="x" * 200)}
    result, dataset = taken(tmp_path, files)
    assert found(dataset) == {1: "one"}
    assert "longer than 100 bytes" in reasons(result)["metadata.jsonl line 2"]


def test_more_captions_than_fit_into_memory_are_an_error(tmp_path, monkeypatch):
    monkeypatch.setattr(annotations, "MAX_TOTAL", 50)
    files = {"a.png": picture(1), "metadata.jsonl": lines(a="one", b="x" * 200)}
    with pytest.raises(Refused, match=r"metadata\.jsonl line 2: more than 50 bytes of captions"):
        taken(tmp_path, files)


def test_metadata_without_any_caption_or_label_is_an_error(tmp_path):
    files = {"a.png": picture(1), "metadata.jsonl": b'{"file_name": "a.png", "boxes": []}'}
    says = (
        r'metadata\.jsonl: no caption or label could be read \(metadata\.jsonl line 1: it has no "t'
    )
    with pytest.raises(BadInput, match=says):
        taken(tmp_path, files)


def test_captions_of_which_none_has_a_picture_leave_nothing(tmp_path):
    files = {"a.png": picture(1), "metadata.jsonl": lines(b="two")}
    with pytest.raises(
        BadInput, match=r"nothing usable .* 2 left out \(the first: a\.png: no caption"
    ):
        taken(tmp_path, files)


def test_a_damaged_picture_is_reported_once(tmp_path):
    files = {
        "a.png": picture(1),
        "b.png": picture(2)[:50],
        "metadata.jsonl": lines(a="one", b="two"),
    }
    result, _ = taken(tmp_path, files)
    assert list(reasons(result)) == ["b.png"]


def test_captions_are_published_and_fetched(tmp_path):
    _, dataset = taken(tmp_path, {"a.png": picture(1), "metadata.jsonl": lines(a="one")})
    store = FolderStore(tmp_path / "store")
    blob = publish(store, dataset.folder)
    got = fetch(store, blob.key, blob.sha256, Cache(tmp_path / "cache", limit_bytes=1 << 30))
    assert list(got.captions()) == ["one"]


def test_batches_hold_the_tokens_of_their_images_captions(tmp_path):
    files = {f"{name}.png": picture(ord(name)) for name in "abcdefgh"}
    files["metadata.jsonl"] = lines(**{name: name for name in "abcdefgh"})
    _, dataset = taken(tmp_path, files)
    tokens = np.array([[ord(text), 0] for text in dataset.captions()])
    feed = CaptionFeed(dataset, tokens, vocabulary=200, batch_size=5, seed=0)
    for data, batch in [feed.train(3), *feed.validation()]:
        shades = np.rint((data[:, 0, 0, 0] + 1) * 127.5).astype(int)
        assert batch[:, 0].tolist() == shades.tolist()
    assert (feed.shape.labels, feed.shape.vocabulary) == ((), 200)
