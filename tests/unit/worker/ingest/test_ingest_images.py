"""IDX files, folders and zips of pictures, turned into dataset versions."""

import gzip
import io
import struct
import subprocess
import sys
import tracemalloc
import zipfile
import zlib
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from db.errors import BadInput, Refused
from worker.cleaning.recipe import Recipe
from worker.data.dataset import TEST, TRAIN, LocalDataset
from worker.ingest.ingest import Ingested, ingest
from worker.source_files import members


@pytest.fixture
def source(tmp_path: Path) -> Path:
    folder = tmp_path / "source"
    folder.mkdir()
    return folder


def taken(path: Path, tmp_path: Path, **options) -> tuple[Ingested, LocalDataset]:
    return ingest(path, tmp_path / "out", Recipe(**options)), LocalDataset(tmp_path / "out")


def idx(array: np.ndarray) -> bytes:
    header = struct.pack(f">BBBB{array.ndim}I", 0, 0, 8, array.ndim, *array.shape)
    return header + array.astype(np.uint8).tobytes()


def write_digits(folder: Path, prefix: str, count: int, side: int = 8) -> np.ndarray:
    images = np.arange(count * side * side).reshape(count, side, side).astype(np.uint8)
    (folder / f"{prefix}-images-idx3-ubyte").write_bytes(idx(images))
    labels = gzip.compress(idx(np.arange(count) % 3 + 4))
    (folder / f"{prefix}-labels-idx1-ubyte.gz").write_bytes(labels)
    return images


def picture(colour: object = "red", size: tuple[int, int] = (40, 30), mode: str = "RGB") -> bytes:
    buffer = io.BytesIO()
    Image.new(mode, size, colour).save(buffer, "PNG")
    return buffer.getvalue()


def write_zip(path: Path, files: dict[str, bytes]) -> Path:
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, data in files.items():
            archive.writestr(name, data)
    return path


def test_a_folder_of_idx_files_keeps_its_test_set_its_labels_and_its_pixels(source, tmp_path):
    images = write_digits(source, "train", 50)
    write_digits(source, "t10k", 10)
    result, dataset = taken(source, tmp_path)
    assert result.manifest["labels"] == ["4", "5", "6"]
    assert result.manifest["counts"]["test"] == 10
    assert result.manifest["shape"]["size"] == 8
    split = dataset.array("split")
    stored = dataset.array("images")
    assert stored.shape == (60, 8, 8, 1)
    assert (stored[split != TEST][..., 0] == images).all()
    assert dataset.array("labels")[split != TEST].tolist() == [n % 3 for n in range(50)]


def test_one_idx_file_finds_its_labels_beside_it(source, tmp_path):
    write_digits(source, "train", 20)
    result, _ = taken(source / "train-images-idx3-ubyte", tmp_path)
    assert result.manifest["labels"] == ["4", "5", "6"]
    assert result.manifest["source"] == {"name": "train-images-idx3-ubyte", "format": "idx"}


def test_idx_images_without_labels_are_taken_without(source, tmp_path):
    (source / "pictures").write_bytes(idx(np.zeros((5, 8, 8))))
    result, dataset = taken(source / "pictures", tmp_path)
    assert result.manifest["labels"] == []
    assert not (dataset.folder / "labels.npy").exists()


def test_idx_images_become_the_size_and_mode_asked_for(source, tmp_path):
    write_digits(source, "train", 20)
    result, dataset = taken(source, tmp_path, size=32, mode="RGB")
    assert dataset.array("images").shape == (20, 32, 32, 3)
    assert result.manifest["shape"]["channels"] == 3


@pytest.mark.parametrize(
    ("data", "complaint"),
    [
        (
            b"not an IDX file at all",
            r"not an IDX file of bytes: begins with 6e 6f 74 20, not with 00 00 08",
        ),
        (b"", "begins with nothing"),
        (b"\0\0\x08\x03\0\0", r"IDX header of shape \(\)"),
        (idx(np.zeros((5, 8, 8)))[:-1], r"it has 4 of the 5 items that its header states"),
        (idx(np.zeros((5, 8, 8))) + b"x", r"more data than the 5 items"),
        (b"\0\0\x08\x03" + struct.pack(">III", 5, 100_000, 100_000), "4096 pixels a side"),
        (b"\0\0\x08\x03" + struct.pack(">III", 2**31, 8, 8), "at most 10,000,000 items"),
        (gzip.compress(idx(np.zeros((5, 8, 8))), mtime=0)[:-9], "damaged gzip"),
        (gzip.compress(b"plain text", mtime=0), "begins with 70 6c 61 69"),
        (idx(np.zeros(5)), "labels only"),
    ],
)
def test_a_file_that_is_no_sound_idx_file_is_refused(source, tmp_path, data, complaint):
    (source / "digits-idx3-ubyte").write_bytes(data)
    with pytest.raises(BadInput, match=complaint):
        ingest(source / "digits-idx3-ubyte", tmp_path / "out")


def test_labels_that_are_too_few_are_refused(source, tmp_path):
    write_digits(source, "train", 20)
    (source / "train-labels-idx1-ubyte.gz").write_bytes(gzip.compress(idx(np.zeros(19))))
    with pytest.raises(BadInput, match="holds 19 labels, train-images-idx3-ubyte 20 images"):
        ingest(source, tmp_path / "out")


def test_idx_files_of_different_sizes_do_not_go_together(source, tmp_path):
    write_digits(source, "train", 20)
    write_digits(source, "t10k", 20, side=9)
    with pytest.raises(BadInput, match=r"several shapes: \[\(8, 8\), \(9, 9\)\]"):
        ingest(source, tmp_path / "out")


def test_sub_folders_are_labels_in_natural_order(source, tmp_path):
    files = {f"set/{n}/{i}.png": picture((n, i, 0)) for n in (10, 2, 1) for i in range(5)}
    result, dataset = taken(write_zip(source / "set.zip", files), tmp_path)
    assert result.manifest["labels"] == ["1", "2", "10"]
    assert dataset.array("images")[:, 0, 0, 0].tolist() == [1] * 5 + [10] * 5 + [2] * 5
    assert dataset.array("labels").tolist() == [0] * 5 + [2] * 5 + [1] * 5


def test_a_folder_and_a_zip_of_it_hold_the_same_images(source, tmp_path):
    files = {f"{n}/{i}.png": picture((n, i, 0)) for n in (1, 2) for i in range(5)}
    write_zip(tmp_path / "source.zip", files)
    for name, data in files.items():
        (source / name).parent.mkdir(exist_ok=True)
        (source / name).write_bytes(data)
    one = ingest(source, tmp_path / "one").manifest
    two = ingest(tmp_path / "source.zip", tmp_path / "two").manifest
    assert one["objects"] == two["objects"]


def test_the_same_data_make_the_same_manifest(source, tmp_path):
    write_zip(source / "set.zip", {f"{n}.png": picture((n, 0, 0)) for n in range(20)})
    manifests = [ingest(source / "set.zip", tmp_path / name).manifest for name in ("a", "b")]
    assert manifests[0] == manifests[1]
    assert (tmp_path / "a/manifest.json").read_bytes() == (
        tmp_path / "b/manifest.json"
    ).read_bytes()


def test_folders_called_train_and_test_are_splits_and_what_is_in_them_labels(source, tmp_path):
    files = {
        f"{split}/{label}/{n}.png": picture((n, 0, 0))
        for split, count in (("train", 20), ("test", 5))
        for label in ("cat", "dog")
        for n in range(count)
    }
    result, _ = taken(write_zip(source / "set.zip", files), tmp_path)
    assert result.manifest["labels"] == ["cat", "dog"]
    assert result.manifest["counts"]["test"] == 10


def test_equal_pictures_never_straddle_two_splits(source, tmp_path):
    files = {f"{n}.png": picture((n % 10, 0, 0)) for n in range(60)}
    _, dataset = taken(write_zip(source / "set.zip", files), tmp_path, split=(50, 25, 25))
    seen = set(zip(dataset.array("images")[:, 0, 0, 0], dataset.array("split"), strict=True))
    assert len(seen) == 10


@pytest.mark.parametrize(
    ("side", "size"), [(28, 28), (8, 32), (32, 32), (47, 32), (64, 64), (300, 64)]
)
def test_the_size_comes_from_the_pictures(source, tmp_path, side, size):
    write_zip(
        source / "set.zip",
        {"a.png": picture(size=(side + 5, side)), "b.png": picture(size=(side, side))},
    )
    assert taken(source / "set.zip", tmp_path)[0].manifest["shape"]["size"] == size


def test_grey_pictures_stay_grey_and_one_coloured_makes_all_coloured(source, tmp_path):
    grey = {f"{n}.png": picture(n, mode="L") for n in range(3)}
    write_zip(source / "grey.zip", grey)
    write_zip(source / "mixed.zip", grey | {"red.png": picture()})
    assert ingest(source / "grey.zip", tmp_path / "a").manifest["shape"]["channels"] == 1
    assert ingest(source / "mixed.zip", tmp_path / "b").manifest["shape"]["channels"] == 3
    assert (
        ingest(source / "mixed.zip", tmp_path / "c", Recipe(mode="L")).manifest["shape"]["channels"]
        == 1
    )


def test_the_middle_of_an_oblong_picture_is_kept_and_what_is_transparent_is_white(source, tmp_path):
    wide = Image.new("RGBA", (90, 30), "blue")
    wide.paste((255, 0, 0, 255), (30, 0, 60, 30))
    wide.paste((0, 0, 0, 0), (30, 0, 60, 15))
    wide.save(source / "wide.png")
    _, dataset = taken(source, tmp_path, size=8)
    assert dataset.array("images")[0, 1, 4].min() > 250
    assert np.abs(dataset.array("images")[0, 6, 4] - np.array([255, 0, 0])).max() < 5


def test_deep_grey_keeps_its_high_bits(source, tmp_path):
    Image.fromarray(np.full((32, 32), 0x8123, np.uint16)).save(source / "deep.png")
    assert taken(source, tmp_path)[1].array("images").tolist()[0][0][0] == [0x81]


def test_a_bad_file_among_good_ones_is_reported_and_left_out(source, tmp_path):
    good = picture()
    files = {
        "cat/good.png": good,
        "cat/cut.png": good[:50],
        "cat/text.png": b"hello",
        "cat/empty.png": b"",
        "dog/good.png": good,
        "dog/notes.doc": b"notes",
        "stray.png": good,
        "../evil.png": good,
        "/evil.png": good,
        "..\\evil.png": good,
        "C:\\evil.png": good,
        "__MACOSX/._a.png": b"",
        ".DS_Store": b"",
    }
    result, dataset = taken(write_zip(source / "set.zip", files), tmp_path)
    assert result.manifest["labels"] == ["cat", "dog"]
    assert len(dataset.array("images")) == 2
    reasons = {reject.name: reject.reason for reject in result.rejects}
    assert result.manifest["rejected"] == len(reasons) == 9
    assert "cannot be read as an image" in reasons["cat/cut.png"]
    assert "cannot be read as an image" in reasons["cat/text.png"]
    assert "its name ends in none of .apng, .bmp" in reasons["dog/notes.doc"]
    assert "in none of them" in reasons["stray.png"]
    for name in ("../evil.png", "/evil.png", "..\\evil.png", "C:\\evil.png"):
        assert "leads out of the archive" in reasons[name]
    assert not list(tmp_path.parent.rglob("evil.png"))


def test_a_label_all_of_whose_pictures_are_bad_is_no_label(source, tmp_path):
    files = {"cat/1.png": picture(), "dog/1.png": picture(), "emu/1.png": picture()[:50]}
    result, dataset = taken(write_zip(source / "set.zip", files), tmp_path)
    assert result.manifest["labels"] == ["cat", "dog"]
    assert dataset.array("labels").tolist() == [0, 1]


def _bomb() -> bytes:
    """A PNG of 30,000 by 30,000 pixels in a few bytes."""

    def chunk(kind: bytes, data: bytes) -> bytes:
        body = kind + data
        return struct.pack(">I", len(data)) + body + struct.pack(">I", zlib.crc32(body))

    header = chunk(b"IHDR", struct.pack(">IIBBBBB", 30_000, 30_000, 8, 2, 0, 0, 0))
    return b"\x89PNG\r\n\x1a\n" + header + chunk(b"IDAT", zlib.compress(b"\0" * 1000))


def test_bombs_links_and_forms_that_are_not_allowed_are_left_out(source, tmp_path):
    link = zipfile.ZipInfo("link.png")
    link.external_attr = 0o120777 << 16
    eps = b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 10 10\n"
    with zipfile.ZipFile(source / "set.zip", "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("good.png", picture())
        archive.writestr("pixels.png", _bomb())
        archive.writestr("packed.png", b"\0" * (8 << 20))
        archive.writestr("script.png", eps)
        archive.writestr(link, "/etc/passwd")
    result, dataset = taken(source / "set.zip", tmp_path)
    reasons = {reject.name: reject.reason for reject in result.rejects}
    assert set(reasons) == {"pixels.png", "packed.png", "script.png", "link.png"}
    assert (
        "exceeds limit" in reasons["pixels.png"] or "more than the limit" in reasons["pixels.png"]
    )
    assert "packed more than 200 to 1" in reasons["packed.png"]
    assert "a link or device" in reasons["link.png"]
    assert len(dataset.array("images")) == 1


def test_a_file_that_is_too_large_is_left_out(source, tmp_path, monkeypatch):
    monkeypatch.setattr(members, "MAX_MEMBER_BYTES", 1000)
    (source / "a.png").write_bytes(picture())
    (source / "b.png").write_bytes(picture() + b"\0" * 1000)
    result, _ = taken(source, tmp_path)
    assert [reject.name for reject in result.rejects] == ["b.png"]
    assert "more than the limit of 1,000" in result.rejects[0].reason


def test_too_many_files_are_refused(source, tmp_path, monkeypatch):
    monkeypatch.setattr(members, "MAX_MEMBERS", 3)
    write_zip(source / "set.zip", {f"{n}.png": picture() for n in range(4)})
    with pytest.raises(BadInput, match="more than 3 files"):
        ingest(source / "set.zip", tmp_path / "out")


def test_a_folder_with_no_good_picture_is_refused_with_the_first_reason(source, tmp_path):
    (source / "a.png").write_bytes(b"no picture")
    with pytest.raises(
        BadInput, match=r"nothing usable in it, 1 left out \(the first: a\.png: cannot"
    ):
        ingest(source, tmp_path / "out")


def test_what_is_empty_absent_or_unknown_is_refused_with_what_is_taken(source, tmp_path):
    with pytest.raises(BadInput, match=r"source: the folder is empty; use IDX"):
        ingest(source, tmp_path / "out")
    with pytest.raises(BadInput, match="nothing cannot be read: No such file"):
        ingest(source / "nothing", tmp_path / "out")
    (source / "a.doc").write_bytes(b"x")
    with pytest.raises(BadInput, match=r"no usable files, only \.doc \(a document\); convert it"):
        ingest(source, tmp_path / "out")
    with pytest.raises(BadInput, match=r"a\.doc: a document; convert it to \.txt"):
        ingest(source / "a.doc", tmp_path / "out")


def test_options_out_of_bounds_are_refused(source, tmp_path):
    for options in (
        {"size": 3},
        {"size": 5000},
        {"mode": "CMYK"},
        {"kind": "video"},
        {"split": (0, 1, 1)},
    ):
        with pytest.raises(Refused):
            ingest(source, tmp_path / "out", Recipe(**options))


def test_pictures_are_not_taken_for_text(source, tmp_path):
    (source / "a.png").write_bytes(picture())
    with pytest.raises(BadInput, match=r"no usable files, only \.png"):
        ingest(source, tmp_path / "out", Recipe(kind="text"))


def test_memory_does_not_grow_with_the_number_of_images(source, tmp_path):
    def peak(count: int) -> int:
        path = source / f"{count}-idx3-ubyte"
        path.write_bytes(idx(np.zeros((count, 28, 28))))
        tracemalloc.start()
        ingest(path, tmp_path / str(count))
        top = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
        return top

    peak(10)  # imports what is needed
    assert peak(8000) - peak(2000) < 6000 * 120  # bytes; the pixels alone are 6000 * 784


def test_adding_data_needs_no_torch():
    code = "import sys, worker.ingest.ingest; assert not {'torch', 'boto3'} & set(sys.modules)"
    subprocess.run([sys.executable, "-c", code], check=True)


def test_mnist_is_taken_as_it_is(shared_data, tmp_path):
    result, dataset = taken(shared_data / "mnist", tmp_path)
    assert result.manifest["counts"]["test"] == 10_000
    assert sum(result.manifest["counts"].values()) == 70_000
    assert result.manifest["labels"] == [str(digit) for digit in range(10)]
    train = dataset.array("split") == TRAIN
    assert np.bincount(dataset.array("labels")[train]).min() > 4500


def test_how_pictures_that_are_not_square_were_fitted_is_a_step_and_an_option(source, tmp_path):
    for n in range(4):
        (source / f"{n}.png").write_bytes(picture((n, 0, 0), size=(40, 30 + 10 * (n % 2))))
    padded = ingest(source, tmp_path / "padded", Recipe(fit="pad"))
    names = [step["name"] for step in padded.manifest["steps"]]
    assert names[:3] == ["decode", "fit", "size"]
    assert padded.manifest["steps"][1]["found"] == {"not square": 2}
    assert padded.manifest["options"]["fit"] == "pad"
    cropped = ingest(source, tmp_path / "cropped")
    assert cropped.manifest["steps"][1]["parameters"] == {"fit": "crop"}
    assert "fit" not in cropped.manifest["options"]
    assert cropped.reading["pictures"] == "of 40x30 to 40x40 pixels, made 32x32 RGB"


@pytest.mark.parametrize("fit", ["crop", "pad", "stretch"])
def test_a_picture_of_one_colour_is_blank_however_it_is_fitted(source, tmp_path, fit):
    (source / "grey.png").write_bytes(picture("grey", size=(40, 20)))
    striped = Image.new("RGB", (40, 20), "red")
    striped.paste("blue", (0, 0, 25, 10))
    striped.save(source / "striped.png")
    result, dataset = taken(source, tmp_path, fit=fit, blank="drop")
    assert [reject.name for reject in result.rejects] == ["grey.png"]
    assert dataset.array("images").shape == (1, 32, 32, 3)


def test_idx_images_are_padded_too(source, tmp_path):
    (source / "wide-idx3-ubyte").write_bytes(idx(np.full((5, 6, 12), 9)))
    result, dataset = taken(source, tmp_path, fit="pad", size=12)
    images = dataset.array("images")[..., 0]
    assert (images[:, 3:9] == 9).all()
    assert (images[:, :3] == 255).all()
    assert (images[:, 9:] == 255).all()
    assert result.reading["pictures"] == "of 12x6 pixels, made 12x12 L"


def test_texts_and_sounds_have_no_fit(source, tmp_path):
    (source / "a.txt").write_text("to be or not to be\n" * 50)
    with pytest.raises(Refused, match=r"fit pad.*text data, which has no fit"):
        ingest(source / "a.txt", tmp_path / "out", Recipe(fit="pad"))
    with pytest.raises(Refused, match="fit 'tile'"):
        Recipe(fit="tile")
