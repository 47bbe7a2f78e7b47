"""The lines that the architecture draws and that static import contracts cannot see."""

import ast
import re
import subprocess
import sys
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from typing import Any

import pytest

from tests import structure
from worker.media import MEDIA

ROOT = Path(__file__).parents[1]
SOURCES = sorted(
    path for package in ("db", "worker", "scheduler") for path in (ROOT / package).rglob("*.py")
)
pytestmark = pytest.mark.xdist_group("architecture")  # each file is parsed once
FAMILIES = {path.parent.name for path in ROOT.glob("worker/families/*/__init__.py")}


@cache
def parse(path: Path) -> ast.Module:
    return ast.parse(path.read_text("utf-8"))


def imported_names(path: Path) -> set[str]:
    """The top-level packages that a file imports, wherever in it."""
    names: set[str] = set()
    for node in ast.walk(parse(path)):
        if isinstance(node, ast.Import):
            names |= {alias.name.partition(".")[0] for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module and not node.level:
            names.add(node.module.partition(".")[0])
    return names


def reads_environment(path: Path) -> bool:
    """Whether a file touches `os.environ` or `os.getenv`."""
    return any(
        isinstance(node, ast.Attribute) and node.attr in {"environ", "getenv", "putenv"}
        for node in ast.walk(parse(path))
    )


def relative(paths: list[Path]) -> set[str]:
    return {path.relative_to(ROOT).as_posix() for path in paths}


def test_only_the_store_speaks_s3() -> None:
    speaking = [path for path in SOURCES if {"boto3", "botocore"} & imported_names(path)]
    assert relative(speaking) == {
        f"worker/store/{name}.py" for name in ("s3", "s3_errors", "s3_stream")
    }


def test_only_the_settings_read_the_environment() -> None:
    reading = [path for path in SOURCES if reads_environment(path)]
    assert relative(reading) == {"worker/environment.py", "worker/settings.py"}


def test_no_weights_are_ever_unpickled() -> None:
    calls = [
        f"{path.name}:{node.lineno}"
        for path in SOURCES
        for node in ast.walk(parse(path))
        if isinstance(node, ast.Attribute)
        and node.attr == "load"
        and isinstance(node.value, ast.Name)
        and node.value.id in {"torch", "pickle"}
    ]
    assert calls == []


def literals(tree: ast.Module) -> Iterator[str]:
    """The string literals of a file but its docstrings, and the names that it imports."""
    docstrings = {id(node.value) for node in ast.walk(tree) if isinstance(node, ast.Expr)}
    for node in ast.walk(tree):
        if isinstance(node, ast.Constant) and isinstance(node.value, str):
            if id(node) not in docstrings:
                yield node.value
        elif isinstance(node, ast.Import | ast.ImportFrom):
            module = node.module if isinstance(node, ast.ImportFrom) else None
            yield from (f"{module}.{each.name}" for each in node.names)


def families_named(tree: ast.Module) -> set[str]:
    """The families named by a literal or import: alone, or as a part of a path or module.

    A name inside a sentence does not count, so that help texts may show examples.
    """
    return FAMILIES & {part for value in literals(tree) for part in re.split(r"[./]", value)}


def media_distinguished(tree: ast.Module) -> set[str]:
    """The media whose names are compared with something, or are the keys of a table.

    As a key, `text` does not count: it is a field of dataset rows.
    """
    found: set[Any] = set()
    for node in ast.walk(tree):
        keys: list[Any] = []
        match node:
            case ast.Compare(ops=[ast.Eq() | ast.NotEq(), *_]):
                found |= {getattr(each, "value", None) for each in [node.left, *node.comparators]}
            case ast.Compare(comparators=[ast.Tuple() | ast.List() | ast.Set() as known]):
                found |= {getattr(each, "value", None) for each in known.elts}
            case ast.MatchValue(value=ast.Constant() as case):
                found.add(case.value)
            case ast.Dict():
                keys = node.keys
            case ast.Subscript():
                keys = [node.slice]
        found |= {getattr(each, "value", None) for each in keys} - {"text"}
    return found & {*MEDIA}


def test_code_outside_a_family_s_folder_does_not_name_the_family() -> None:
    demo = ROOT / "scheduler/demo"  # uses Genmill as anybody would
    found = [
        (path.relative_to(ROOT).as_posix(), name)
        for path in SOURCES
        if demo not in path.parents
        for name in families_named(parse(path))
        if ROOT / "worker/families" / name not in path.parents
    ]
    assert found == []


def test_code_outside_the_media_does_not_tell_them_apart() -> None:
    telling = [path for path in SOURCES if media_distinguished(parse(path))]
    assert [path for path in telling if ROOT / "worker/media" not in path.parents] == []


@pytest.mark.parametrize(
    ("code", "names"),
    [
        ("if family.name == 'gan': pass", {"gan"}),
        ("from worker.families.gan import FAMILY", {"gan"}),
        ("from worker.families import gan, vae", {"gan", "vae"}),
        ("import worker.families.gan.model", {"gan"}),
        ("import_module('worker.families.gan.model')", {"gan"}),
        ("'''As `gan`.'''\nHELP = 'genmill enqueue train gan'", set()),
        ("if data.kind != 'image': pass", {"image"}),
        ("if 'text' == kind or kind in ('text', 'audio'): pass", {"text", "audio"}),
        ("match kind:\n  case 'text': pass", {"text"}),
        ("{'image': 1, 'text': 2}[kind]\ntable['audio']", {"image", "audio"}),
        ("Family(media='image')\nrow = {'text': ''}\n'text' in row and row['text']", set()),
    ],
)
def test_names_are_found_where_code_depends_on_them(code: str, names: set[str]) -> None:
    tree = ast.parse(code)
    assert families_named(tree) | media_distinguished(tree) == names


BLOCKED = """
import sys
class Blocker:
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] in {blocked} or name in {blocked}:
            raise ImportError(f"{{name}} must not be imported here")
sys.meta_path.insert(0, Blocker())
sys.argv = ["genmill", *{words}]
from scheduler.cli import main
main()
"""


def run_without(blocked: set[str], *words: str, home: Path) -> subprocess.CompletedProcess[str]:
    """Run a command in a process where importing any of `blocked` fails."""
    return subprocess.run(
        [sys.executable, "-c", BLOCKED.format(blocked=blocked, words=list(words))],
        capture_output=True,
        text=True,
        timeout=60,
        cwd=home,
        env={"PATH": "/usr/bin:/bin", "PYTHONPATH": str(ROOT), "GENMILL_HOME": str(home)},
        check=False,
    )


@pytest.fixture
def home(sqlite_url: str, tmp_path: Path) -> Path:
    """A home with a database."""
    return tmp_path


@pytest.mark.parametrize(
    "words",
    [
        ["--help"],
        ["db", "upgrade"],
        ["job", "list"],
        ["family", "list"],
        ["family", "show", "gan"],
        ["model", "list"],
        ["template", "list"],
        ["dataset", "list"],
        ["schedule", "list"],
        ["status"],
        ["db", "check"],
    ],
    ids=" ".join,
)
def test_no_command_but_a_worker_imports_torch(words: list[str], home: Path) -> None:
    done = run_without({"torch"}, *words, home=home)
    assert done.returncode == 0, done.stderr


def test_help_imports_click_and_little_else(tmp_path: Path) -> None:
    heavy = {"torch", "numpy", "sqlalchemy", "pydantic", "celery", "redis", "boto3", "rich", "PIL"}
    done = run_without(heavy, "--help", home=tmp_path)
    assert done.returncode == 0, done.stderr
    assert "enqueue" in done.stdout


def test_a_list_of_jobs_imports_sqlalchemy_and_little_else(home: Path) -> None:
    heavy = {"numpy", "pydantic", "alembic", "celery", "redis", "boto3", "rich", "worker.families"}
    done = run_without(heavy | {"sqlalchemy.dialects.postgresql"}, "job", "list", home=home)
    assert done.returncode == 0, done.stderr


def test_no_modules_import_one_another_in_a_circle_not_even_for_types() -> None:
    known = structure.modules(ROOT)
    graph = {name: structure.imports(name, path, known) for name, path in known.items()}
    assert structure.circles(graph) == []
