"""The threat table of `.github/SECURITY.md` names tests that exist."""

import ast
import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
TEXT = (ROOT / ".github" / "SECURITY.md").read_text("utf-8")
THREATS = TEXT.partition("## Threats")[2]
ROWS = [line for line in THREATS.splitlines() if line.startswith("| ")][2:]
NAMED = sorted(set(re.findall(r"`(tests/[\w/]+\.py)::(\w+)`", THREATS)))
POSITIONS = (
    *("broker", "object store", "database", "command line", "process list", "another account"),
    *("dataset", "model folder", "working directory", "packages"),
)


@pytest.mark.parametrize(("file", "name"), NAMED, ids=[name for _, name in NAMED])
def test_a_test_that_holds_a_line_exists(file: str, name: str) -> None:
    found = ast.walk(ast.parse((ROOT / file).read_text("utf-8")))
    assert name in {node.name for node in found if isinstance(node, ast.FunctionDef)}


@pytest.mark.parametrize("row", ROWS, ids=lambda row: row[2:40])
def test_every_line_names_what_holds_it(row: str) -> None:
    assert "::test_" in row or "`make " in row


@pytest.mark.parametrize("position", POSITIONS)
def test_every_position_of_an_attacker_has_a_line(position: str) -> None:
    assert any(position in row.split("|")[1] for row in ROWS)
