"""A project: a folder of photographs of mixed kinds, most of which are not square."""

import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from tests.e2e.test_life import SMALL_PICTURES

pytestmark = [pytest.mark.xdist_group("e2e"), pytest.mark.slow]

SIZES = {"landscape": (160, 90), "portrait": (90, 160)}
ORIENTATION = 0x0112


def scene(number: int, size: tuple[int, int]) -> Image.Image:
    """A horizon between sky and grass, and a sun, at places of their own."""
    draw = np.random.default_rng(number)
    width, height = size
    y, x = np.mgrid[:height, :width]
    sky = y < height * draw.uniform(0.4, 0.6)
    pixels = np.where(sky[..., None], draw.integers((90, 140, 200), (140, 190, 255)), (60, 120, 40))
    sun = (x - width * draw.uniform(0.2, 0.8)) ** 2 + (y - height * 0.2) ** 2 < (height / 9) ** 2
    pixels[sun] = (250, 220, 90)
    return Image.fromarray((pixels + draw.normal(0, 4, pixels.shape)).clip(0, 255).astype(np.uint8))


def turned(number: int, path: Path) -> None:
    """A photograph taken with the camera on its side: stored lying, to be shown upright."""
    exif = Image.Exif()
    exif[ORIENTATION] = 6
    upright = scene(number, SIZES["portrait"])
    upright.transpose(Image.Transpose.ROTATE_90).save(path, exif=exif, quality=92)


def with_alpha(image: Image.Image) -> Image.Image:
    """The left third is transparent."""
    clear = image.convert("RGBA")
    clear.paste((0, 0, 0, 0), (0, 0, image.width // 3, image.height))
    return clear


def deep(image: Image.Image) -> Image.Image:
    return Image.fromarray(np.asarray(image.convert("L")).astype(np.uint16) * 257)


def write_photographs(folder: Path) -> int:
    """Photographs in seven kinds of files, and three files that are no use; how many are good."""
    count = 0
    for label, size in SIZES.items():
        (folder / label).mkdir(parents=True)
        for number in range(5):
            place = folder / label / f"{number}"
            seed = number + 100 * (label == "portrait")
            kinds = {
                "plain.jpg": scene(seed, size),
                "cmyk.jpg": scene(seed + 10, size).convert("CMYK"),
                "alpha.png": with_alpha(scene(seed + 20, size)),
                "deep.png": deep(scene(seed + 30, size)),
                "palette.gif": scene(seed + 40, size).quantize(64),
                "photo.webp": scene(seed + 50, size),
            }
            for name, image in kinds.items():
                image.save(place.with_name(f"{number}-{name}"))
                count += 1
    for number in range(5):
        turned(500 + number, folder / "portrait" / f"{number}-turned.jpg")
        count += 1
    (folder / "landscape" / "cut.jpg").write_bytes(b"\xff\xd8\xff\xe0 and no more")
    (folder / "portrait" / "notes.docx").write_bytes(b"PK")
    Image.new("RGB", (90, 40), "grey").save(folder / "landscape" / "blank.png")
    return count


@pytest.mark.timeout(300)
def test_a_folder_of_photographs_of_mixed_kinds(machine, tmp_path):
    good = write_photographs(tmp_path / "photos")
    added = machine.genmill("dataset", "add", "views", tmp_path / "photos", "--fit", "pad")
    assert (added.code, added.out) == (0, "views:1\n"), added.err
    told = added.err.splitlines()
    print(added.err)
    assert f"not square: {good + 1} of {good + 1}, padded with white" in told
    assert "pictures: of 90x40 to 160x90 pixels, made 64x64 RGB" in told
    assert any(line.startswith(f"items: {good} (") for line in told)
    assert any(line.startswith("left out: 3 (") for line in told)

    shown = json.loads(machine.do("dataset", "show", "views", "--json"))
    assert shown["labels"] == ["landscape", "portrait"]
    steps = {step["name"]: step for step in shown["steps"]}
    assert steps["fit"]["parameters"] == {"fit": "pad", "colour": "white"}
    machine.do("dataset", "show", "views", "--sheet", tmp_path / "sheet.png")

    (tmp_path / "more").mkdir()
    for label, size in SIZES.items():
        (tmp_path / "more" / label).mkdir()
        scene(900 + len(label), size).save(tmp_path / "more" / label / "one.png")
    updated = machine.genmill("dataset", "update", "views", tmp_path / "more")
    assert "not square: 2 of 2, padded with white" in updated.err

    machine.do("up", "--detach")
    machine.do(
        *("enqueue", "train", "vae", "--dataset", "views", "--name", "views", "--max-steps", "30"),
        *SMALL_PICTURES,
        "--wait",
    )
    job = machine.do("enqueue", "generate", "views", "--count", "4", "--wait")
    machine.do("artifact", "download", job, "-o", tmp_path / "made")
    for path in (tmp_path / "made").glob("*.png"):
        with Image.open(path) as picture:
            assert (picture.size, picture.mode) == ((64, 64), "RGB")
