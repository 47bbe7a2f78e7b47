"""What the pages show exists: commands and their options, make targets, files, rooms."""

import importlib
import re
import shlex
import sys
from collections.abc import Iterator
from pathlib import Path

import click
import pytest

from scheduler.cli import cli
from worker.families import families
from worker.settings import Settings

ROOT = Path(__file__).parents[1]
DOCS = ROOT / "docs"
BUILT = {DOCS / "_build", DOCS / "reference"}  # not written by hand
PATHS = [ROOT / "README.md", *sorted((ROOT / ".github").rglob("*.md")), *sorted(DOCS.rglob("*.md"))]
PAGES = {
    path.relative_to(ROOT).as_posix(): path.read_text("utf-8")
    for path in PATHS
    if BUILT.isdisjoint(path.parents)
}


def blocks(text: str, *languages: str) -> list[str]:
    return re.findall(rf"```(?:{'|'.join(languages)})\n(.*?)```", text, re.DOTALL)


def shell_lines(text: str) -> Iterator[str]:
    """The lines of the shell blocks, continued ones joined."""
    for block in blocks(text, "console", "bash"):
        yield from block.replace("\\\n", " ").splitlines()


def commands(line: str) -> Iterator[list[str]]:
    """The words of each `genmill` command in a line, inner ones of `$(...)` included."""
    for found in re.finditer(r"(?:^|\$\(|&& )genmill (.*)", line):
        words = found[1]
        if found[0].startswith("$("):
            words = words[: words.index(")")]
        lexer = shlex.shlex(words.partition(" && ")[0], posix=True, punctuation_chars=False)
        lexer.whitespace_split = True
        yield list(lexer)


SHOWN = [
    (page, words)
    for page, text in PAGES.items()
    for line in shell_lines(text)
    for words in commands(line)
]


def check(words: list[str]) -> None:
    """Parse a command as the command line does, without running it."""
    context, command, rest = click.Context(cli), cli, words
    while isinstance(command, click.Group):
        name, found, rest = command.resolve_command(context, rest)
        assert found is not None
        command = found
    command.make_context(name, list(rest))
    if "--" in rest:
        check(rest[rest.index("--") + 1 :])


@pytest.mark.parametrize(
    ("page", "words"), SHOWN, ids=[f"{page}: {' '.join(words[:4])}" for page, words in SHOWN]
)
def test_a_command_shown_takes_the_options_shown(page: str, words: list[str]) -> None:
    check(words)


def test_most_nouns_of_the_command_line_are_shown() -> None:
    shown = {words[0] for _, words in SHOWN}
    assert len(shown) > len(cli.list_commands(click.Context(cli))) * 2 / 3


def test_a_command_that_does_not_exist_would_be_noticed() -> None:
    (words,) = commands("genmill enqueue train gan --dateset d --name n")
    with pytest.raises(click.NoSuchOption):
        check(words)


@pytest.mark.parametrize("page", PAGES)
def test_commands_named_in_running_text_exist(page: str) -> None:
    named = re.findall(r"`genmill ([a-z]+)(?: ([a-z]+))?", PAGES[page])
    context = click.Context(cli)
    for noun, verb in named:
        command = cli.get_command(context, noun)
        assert command is not None, noun
        if verb and isinstance(command, click.Group):
            assert command.get_command(context, verb) is not None, f"{noun} {verb}"


@pytest.mark.parametrize("page", PAGES)
def test_make_targets_named_exist(page: str) -> None:
    targets = set(re.findall(r"^([a-z]+):", (ROOT / "Makefile").read_text("utf-8"), re.MULTILINE))
    text = PAGES[page]
    named = set(re.findall(r"`make ([a-z]+)", text))
    for line in shell_lines(text):
        named |= set(re.findall(r"^(?:\S+=\S+ )*make ([a-z]+)", line))
    assert named <= targets


@pytest.mark.parametrize("page", PAGES)
def test_settings_named_exist(page: str) -> None:
    known = {f"GENMILL_{name.upper()}" for name in Settings.model_fields}
    named = set(re.findall(r"\bGENMILL_[A-Z0-9_]+", PAGES[page]))
    assert named - {"GENMILL_TEST_DATABASE"} <= known


@pytest.mark.parametrize("page", PAGES)
def test_links_lead_to_files(page: str) -> None:
    folder = (ROOT / page).parent
    links = re.findall(r"\]\(([^)#]+)(?:#[^)]*)?\)", PAGES[page])
    inner = [link for link in links if "://" not in link and not link.startswith("reference/")]
    inner = [link for link in inner if not link.startswith("../reference/")]
    assert [link for link in inner if not (folder / link).exists()] == []


@pytest.mark.parametrize("page", PAGES)
def test_rooms_and_files_named_exist(page: str) -> None:
    named = re.findall(
        r"`((?:db|worker|scheduler|docker|docs|tests|\.github)/[\w./-]*)`", PAGES[page]
    )
    assert [path for path in named if not (ROOT / path).exists()] == []


def rooms(package: str) -> set[str]:
    """The folders of a package that hold code, as paths from the top folder."""
    return {f"{package}/{path.parent.name}" for path in (ROOT / package).glob("*/__init__.py")}


def test_the_tree_of_rooms_has_every_room_and_no_other() -> None:
    (tree,) = (block for block in blocks(PAGES["docs/concepts.md"], "text") if "worker/" in block)
    named, outer = set(), ""
    for line in tree.splitlines():
        name = line.split()[0].removesuffix("/")
        outer = outer if line.startswith(" ") else name
        named.add(f"{outer}/{name}" if line.startswith(" ") else name)
    assert {path for path in named if not (ROOT / path).is_dir()} == set()
    assert named >= rooms("worker") | rooms("scheduler")


@pytest.mark.parametrize("picture", sorted((DOCS / "pictures").glob("*.svg")), ids=lambda p: p.name)
def test_the_rooms_in_a_picture_exist(picture: Path) -> None:
    known = {path.partition("/")[2] for path in rooms("worker") | rooms("scheduler")}
    known |= {"db", "worker", "scheduler"}
    assert set(re.findall(r"\b(\w+)/", drawn_text(picture))) <= known


def test_the_commands_in_the_picture_of_the_house_exist() -> None:
    text = drawn_text(DOCS / "pictures" / "house.svg")
    (listed,) = re.findall(r"the command line: ((?:\w+, )+\w+)", text)
    assert set(listed.split(", ")) <= set(cli.list_commands(click.Context(cli)))


def drawn_text(picture: Path) -> str:
    return " ".join(re.findall(r"<text[^>]*>([^<]*)</text>", picture.read_text("utf-8")))


@pytest.fixture
def reference(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The reference pages as written from the code, into a folder with a page of something gone."""
    gone = tmp_path / "families" / "gone.md"
    gone.parent.mkdir()
    gone.write_text("# Gone\n", "utf-8")
    monkeypatch.setattr(sys, "path", [str(DOCS), *sys.path])
    importlib.import_module("declarations").write(tmp_path)
    return tmp_path


def test_the_reference_has_a_page_for_each_family_and_command(reference: Path) -> None:
    pages = {path.stem for path in (reference / "families").iterdir()}
    assert pages == set(families())
    pages = {path.stem for path in (reference / "commands").iterdir()}
    assert pages == set(cli.list_commands(click.Context(cli)))


def test_the_reference_has_every_parameter_and_setting(reference: Path) -> None:
    for name, family in families().items():
        page = (reference / "families" / f"{name}.md").read_text("utf-8")
        wanted = {*family.params.model_fields, *family.sampling.model_fields}
        assert {each for each in wanted if f"| `{each}` |" not in page} == set()
    settings = (reference / "_settings.md").read_text("utf-8")
    assert all(f"`GENMILL_{name.upper()}`" in settings for name in Settings.model_fields)
