import json
from pathlib import Path

from PIL import Image

from scheduler.demo.data import write_digits, write_documentation
from scheduler.demo.run import draw_sheet
from scheduler.demo.specs import GENERATION, RETRAIN, THEN, TRAINING
from scheduler.schedules.parsing import parse_repeated
from worker.media.samples.contact_sheet import GAP, MIN_WIDTH
from worker.specs import parse_spec


def test_the_demo_s_digits_are_pictures_in_a_folder_a_class(tmp_path):
    folder = write_digits(tmp_path / "digits")
    pictures = list(folder.glob("*/*.png"))
    assert sorted(each.name for each in folder.iterdir()) == [str(n) for n in range(10)]
    assert len(pictures) == 1797
    with Image.open(pictures[0]) as picture:
        assert (picture.size, picture.mode) == ((8, 8), "L")
        assert picture.getextrema()[1] == 255


def test_the_demo_s_text_is_the_prose_of_python_s_documentation(tmp_path):
    lines = write_documentation(tmp_path / "documentation.txt").read_text("utf-8").splitlines()
    assert sum(map(len, lines)) > 100_000
    assert len(set(lines)) == len(lines)
    assert all(line.endswith((".", ":")) for line in lines)


def test_the_demo_s_jobs_are_specs_that_could_be_submitted():
    for spec in (*TRAINING.values(), *GENERATION.values()):
        assert parse_spec(spec).kind == spec["kind"]
    for spec in THEN["gan"]:
        assert parse_spec(spec).kind == spec["kind"]


def test_the_demo_s_retraining_is_a_command_that_ends_with_the_gate():
    command = parse_repeated(RETRAIN)
    assert [spec.kind for spec in command.then] == ["evaluate", "promote"]


def write_sample(folder: Path, index: int, label: str, brightness: int) -> None:
    Image.new("L", (4, 4), brightness).save(folder / f"{index:09}.png")
    (folder / f"{index:09}.json").write_text(json.dumps({"label": label}))


def test_a_contact_sheet_has_a_row_a_class(tmp_path):
    for index in range(6):
        write_sample(tmp_path, index, label="ab"[index % 2], brightness=40 * index)
    draw_sheet(tmp_path, tmp_path / "sheet.png", columns=3)
    with Image.open(tmp_path / "sheet.png") as sheet:
        factor = MIN_WIDTH // 4
        step, gap = (4 + GAP) * factor, GAP * factor
        assert sheet.size == (3 * step + gap, 2 * step + gap)
        places = [[(gap + x * step, gap + y * step) for x in range(3)] for y in range(2)]
        rows = [[sheet.getpixel(place) for place in row] for row in places]
    assert rows == [[0, 80, 160], [40, 120, 200]]
