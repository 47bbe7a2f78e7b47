"""The README's bash block is run; what all other pages show is looked up by `test_docs`."""

import json
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

ROOT = Path(__file__).parents[1]
README = (ROOT / "README.md").read_text("utf-8")


@pytest.fixture
def desk(tmp_path: Path) -> Iterator[Path]:
    """An empty working folder; what runs there is stopped at the end."""
    yield tmp_path
    subprocess.run(
        [sys.executable, "-m", "scheduler", "down"],
        cwd=tmp_path,
        env=environment(tmp_path) | {"PYTHONPATH": str(ROOT)},
        capture_output=True,
        check=False,
    )


def environment(desk: Path) -> dict[str, str]:
    return {
        "PATH": f"{Path(sys.executable).parent}:/usr/bin:/bin",
        "GENMILL_HOME": str(desk / "home"),
        "HOME": str(desk),
        "LANG": "C.UTF-8",
    }


def run_block(desk: Path) -> str:
    """Run the block and return what it printed."""
    (script,) = re.findall(r"```bash\n(.*?)```", README, re.DOTALL)
    done = subprocess.run(
        ["bash", "-euo", "pipefail", "-c", script],
        cwd=desk,
        env=environment(desk),
        capture_output=True,
        text=True,
        timeout=1200,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


@pytest.mark.slow
@pytest.mark.timeout(1300)
def test_as_they_stand_they_make_digits_that_can_be_read(desk: Path) -> None:
    from sklearn.linear_model import LogisticRegression

    run_block(desk)
    real = sorted((desk / "digits").rglob("*.png"))
    reader = LogisticRegression(max_iter=500).fit(
        [pixels(path) for path in real], [path.parent.name for path in real]
    )
    made = sorted((desk / "out").rglob("*.png"))
    labels = [json.loads(path.with_suffix(".json").read_text("utf-8"))["label"] for path in made]
    assert reader.score([pixels(path) for path in made], labels) > 0.7


def pixels(path: Path) -> np.ndarray:
    """A picture as 64 numbers, whatever its size."""
    with Image.open(path) as image:
        return np.asarray(image.convert("L").resize((8, 8), Image.Resampling.BOX)).ravel() / 255
