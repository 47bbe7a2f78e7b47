"""The README's bash block is run; what all other pages show is looked up by `test_docs`."""

import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

ROOT = Path(__file__).parents[1]
README = (ROOT / "README.md").read_text("utf-8")


def letters(folder: Path) -> None:
    """Forty pictures of two classes: bars that stand and bars that lie."""
    rng = np.random.default_rng(0)
    for number in range(40):
        pixels = rng.integers(0, 40, (28, 28), dtype=np.uint8)
        place = int(rng.integers(4, 22))
        pixels[
            (slice(None), slice(place, place + 3)) if number % 2 else slice(place, place + 3)
        ] = 255
        target = folder / "images" / "il"[number % 2]
        target.mkdir(parents=True, exist_ok=True)
        Image.fromarray(pixels).save(target / f"{number}.png")


@pytest.fixture
def desk(tmp_path: Path) -> Path:
    """A working folder as the README supposes: images and a text."""
    letters(tmp_path)
    lines = (
        f"The {n} small {w} of the mill turn.\n" for n in range(200) for w in ("wheels", "stones")
    )
    (tmp_path / "book.txt").write_text("".join(lines), "utf-8")
    return tmp_path


@pytest.mark.timeout(400)
def test_the_commands_by_hand_do_what_they_say(desk: Path) -> None:
    (script,) = re.findall(r"```bash\n(.*?)```", README, re.DOTALL)
    environment = {
        "PATH": f"{Path(sys.executable).parent}:/usr/bin:/bin",
        "GENMILL_HOME": str(desk / "home"),
        "HOME": str(desk),
        "LANG": "C.UTF-8",
    }
    try:
        done = subprocess.run(
            ["bash", "-euo", "pipefail", "-c", script],
            cwd=desk,
            env=environment,
            capture_output=True,
            text=True,
            timeout=380,
            check=False,
        )
    finally:
        subprocess.run(
            [sys.executable, "-m", "scheduler", "down"],
            cwd=desk,
            env=environment | {"PYTHONPATH": str(ROOT)},
            capture_output=True,
            check=False,
        )
    assert done.returncode == 0, done.stdout + done.stderr
    assert len(list((desk / "out").rglob("*.png"))) >= 200
    assert "nightly" in done.stdout
