"""The lines that the architecture draws and that static import contracts cannot see."""

import ast
import subprocess
import sys
from pathlib import Path

import pytest

from tests import structure

ROOT = Path(__file__).parents[1]
SOURCES = sorted(
    path for package in ("db", "worker", "scheduler") for path in (ROOT / package).rglob("*.py")
)


def imported_names(path: Path) -> set[str]:
    """The top-level packages that a file imports, wherever in it."""
    names: set[str] = set()
    for node in ast.walk(ast.parse(path.read_text("utf-8"))):
        if isinstance(node, ast.Import):
            names |= {alias.name.partition(".")[0] for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module and not node.level:
            names.add(node.module.partition(".")[0])
    return names


def reads_environment(path: Path) -> bool:
    """Whether a file touches `os.environ` or `os.getenv`."""
    return any(
        isinstance(node, ast.Attribute) and node.attr in {"environ", "getenv", "putenv"}
        for node in ast.walk(ast.parse(path.read_text("utf-8")))
    )


def relative(paths: list[Path]) -> set[str]:
    return {path.relative_to(ROOT).as_posix() for path in paths}


def test_only_the_store_speaks_s3() -> None:
    speaking = [path for path in SOURCES if {"boto3", "botocore"} & imported_names(path)]
    assert relative(speaking) == {"worker/store/s3.py"}


def test_only_the_settings_read_the_environment() -> None:
    reading = [path for path in SOURCES if reads_environment(path)]
    assert relative(reading) == {"worker/settings.py"}


def test_no_weights_are_ever_unpickled() -> None:
    calls = [
        f"{path.name}:{node.lineno}"
        for path in SOURCES
        for node in ast.walk(ast.parse(path.read_text("utf-8")))
        if isinstance(node, ast.Attribute)
        and node.attr == "load"
        and isinstance(node.value, ast.Name)
        and node.value.id in {"torch", "pickle"}
    ]
    assert calls == []


BLOCKED = """
import sys
class Blocker:
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] in {blocked}:
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


@pytest.mark.parametrize(
    "words",
    [
        ["--help"],
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
def test_no_command_but_a_worker_imports_torch(words: list[str], tmp_path: Path) -> None:
    assert run_without({"torch"}, "db", "upgrade", home=tmp_path).returncode == 0
    done = run_without({"torch"}, *words, home=tmp_path)
    assert done.returncode == 0, done.stderr


def test_help_imports_click_and_little_else(tmp_path: Path) -> None:
    heavy = {"torch", "numpy", "sqlalchemy", "pydantic", "celery", "redis", "boto3", "rich", "PIL"}
    done = run_without(heavy, "--help", home=tmp_path)
    assert done.returncode == 0, done.stderr
    assert "enqueue" in done.stdout


def test_no_modules_import_one_another_in_a_circle_not_even_for_types() -> None:
    known = structure.modules(ROOT)
    graph = {name: structure.imports(name, path, known) for name, path in known.items()}
    assert structure.circles(graph) == []
