"""The README is run: its bash block in a shell; what its other blocks name is looked up."""

import re
import shlex
import subprocess
import sys
from pathlib import Path

import click
import numpy as np
import pytest
from PIL import Image

from scheduler.cli import cli

ROOT = Path(__file__).parents[1]
README = (ROOT / "README.md").read_text("utf-8")


def blocks(language: str) -> list[str]:
    return re.findall(rf"```{language}\n(.*?)```", README, re.DOTALL)


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
    (script,) = blocks("bash")
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


def test_every_make_target_named_exists() -> None:
    targets = set(re.findall(r"^([a-z]+):", (ROOT / "Makefile").read_text("utf-8"), re.MULTILINE))
    named = {word for block in blocks("console") for word in re.findall(r"\bmake (\w+)", block)}
    assert named
    assert named <= targets


def test_every_command_named_exists() -> None:
    context = click.Context(cli)
    named = set(
        re.findall(r"`?\bgenmill ([a-z]+)\b", "\n".join(blocks("console") + blocks("bash")))
    )
    named |= set(re.findall(r"`genmill ([a-z]+)", README))
    assert named
    assert named <= set(cli.list_commands(context))


@pytest.mark.parametrize(
    "line",
    [line for block in blocks("console") for line in block.splitlines() if "genmill " in line],
)
def test_every_command_shown_takes_the_options_shown(line: str) -> None:
    words = shlex.split(line[line.index("genmill ") :], comments=True)[1:]
    context, command = click.Context(cli), cli
    while isinstance(command, click.Group):
        name, command, words = command.resolve_command(context, words)
    assert command is not None
    command.make_context(name, words)


def test_every_link_leads_to_a_file() -> None:
    links = [link for link in re.findall(r"\]\(([^)]+)\)", README) if "://" not in link]
    assert links
    assert [link for link in links if not (ROOT / link).exists()] == []


def test_the_tree_names_files_that_exist() -> None:
    (tree,) = blocks("text")
    folder = Path()
    for line in tree.splitlines():
        name = line.split()[0]
        if not line.startswith(" "):
            folder = Path(name)
        path = ROOT / (folder if not line.startswith(" ") else folder / name)
        assert path.exists(), path
