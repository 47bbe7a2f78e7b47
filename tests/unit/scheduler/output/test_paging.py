import sys
from pathlib import Path

import pytest

from scheduler.output.paging import paged
from worker.settings import Settings

LINES = "".join(f"line {n}\n" for n in range(30))
TO_FILE = "sh -c 'cat > paged.txt'"


@pytest.fixture(autouse=True)
def desk(tmp_path, monkeypatch):
    for name in Settings.model_fields:
        monkeypatch.delenv(f"GENMILL_{name.upper()}", raising=False)
    monkeypatch.setenv("LINES", "24")
    monkeypatch.chdir(tmp_path)


@pytest.fixture
def on_terminal(monkeypatch):
    """Makes standard output a terminal; pytest puts another in its place before the test runs."""
    return lambda: monkeypatch.setattr("sys.stdout.isatty", lambda: True)


def show(text):
    with paged():
        sys.stdout.write(text)


def fail_after(text):
    with paged():
        sys.stdout.write(text)
        raise KeyError


@pytest.mark.parametrize("setting", ["GENMILL_PAGER", "PAGER"])
def test_long_output_goes_to_the_pager(on_terminal, monkeypatch, capsys, setting):
    on_terminal()
    monkeypatch.setenv("PAGER", "false")
    monkeypatch.setenv(setting, TO_FILE)
    show(LINES)
    assert Path("paged.txt").read_text() == LINES
    assert capsys.readouterr().out == ""


def test_a_pager_named_in_the_settings_file_is_used(on_terminal, tmp_path):
    on_terminal()
    tmp_path.chmod(0o700)
    Path(".env").write_text(f'GENMILL_PAGER="{TO_FILE}"\n')
    Path(".env").chmod(0o600)
    show(LINES)
    assert Path("paged.txt").read_text() == LINES


@pytest.mark.parametrize("pager", ["cat", "no-such-pager", "'", ""])
def test_without_a_pager_it_is_printed(on_terminal, monkeypatch, capsys, pager):
    on_terminal()
    monkeypatch.setenv("PAGER", pager)
    show(LINES)
    assert capsys.readouterr().out == LINES


def test_what_fits_is_printed(on_terminal, monkeypatch, capsys):
    on_terminal()
    monkeypatch.setenv("PAGER", TO_FILE)
    show("one\n")
    assert capsys.readouterr().out == "one\n"
    assert not Path("paged.txt").exists()


def test_a_pipe_has_no_pager(monkeypatch, capsys):
    monkeypatch.setenv("PAGER", TO_FILE)
    show(LINES)
    assert capsys.readouterr().out == LINES
    assert not Path("paged.txt").exists()


def test_what_was_printed_before_an_error_is_shown(on_terminal, monkeypatch, capsys):
    on_terminal()
    monkeypatch.setenv("PAGER", "cat")
    with pytest.raises(KeyError):
        fail_after(LINES)
    assert capsys.readouterr().out == LINES


def test_a_pager_that_is_left_early_is_no_error(on_terminal, monkeypatch):
    on_terminal()
    monkeypatch.setenv("PAGER", "true")
    show(LINES * 20_000)  # more than a pipe holds
