"""The version of the code, with its commit where that is known."""

import re
import subprocess
import sys
from importlib.metadata import version
from pathlib import Path

import pytest

from worker import code_version as module
from worker.code_version import VERSION, code_version, version_to_build


@pytest.fixture(autouse=True)
def forgotten():
    """What other tests found out is not known here, nor here found out there."""
    code_version.cache_clear()
    yield
    code_version.cache_clear()


@pytest.fixture
def somewhere(tmp_path, monkeypatch):
    """The module as if it lay in another folder."""
    (tmp_path / "worker").mkdir()
    path = tmp_path / "worker/code_version.py"
    path.write_text("# ours\n")
    monkeypatch.setattr(module, "_FILE", path)
    monkeypatch.setattr(module, "_ROOT", tmp_path)
    monkeypatch.setattr(module, "_COMMIT", path.with_name("commit.txt"))
    return tmp_path


def git(folder: Path, *words: str) -> str:
    who = ["-c", "user.name=a", "-c", "user.email=a@b", "-c", "commit.gpgsign=false"]
    done = subprocess.run(
        ["git", *who, *words], cwd=folder, check=True, capture_output=True, text=True
    )
    return done.stdout.strip()


def test_it_begins_with_the_version_and_names_a_commit_if_there_is_one():
    assert re.fullmatch(rf"{re.escape(VERSION)}(\+g[0-9a-f]{{7,40}}(\.dirty)?)?", code_version())
    assert version("genmill").partition("+")[0] == VERSION


def test_commits_are_told_apart_and_changes_too(somewhere, monkeypatch):
    git(somewhere, "init", "--quiet")
    git(somewhere, "add", ".")
    git(somewhere, "commit", "--quiet", "--message", "one")
    one = git(somewhere, "rev-parse", "--short=7", "HEAD")
    # a hook of git sets these for what it runs
    monkeypatch.setenv("GIT_DIR", str(somewhere / "elsewhere"))
    monkeypatch.setenv("GIT_WORK_TREE", str(somewhere / "elsewhere"))
    assert code_version() == version_to_build() == f"{VERSION}+g{one}"
    (somewhere / "worker/code_version.py").write_text("# changed\n")
    assert code_version() == f"{VERSION}+g{one}"  # it is asked once
    code_version.cache_clear()
    assert code_version() == f"{VERSION}+g{one}.dirty"


def test_without_git_or_with_a_broken_repository_it_is_the_plain_version(somewhere, monkeypatch):
    (somewhere / ".git").mkdir()
    assert code_version() == VERSION
    code_version.cache_clear()
    monkeypatch.setenv("PATH", str(somewhere))
    assert code_version() == VERSION


def test_outside_a_checkout_it_is_that_of_the_wheel_that_it_came_in(somewhere, monkeypatch):
    assert code_version() == VERSION  # another genmill is installed, but this is not its file
    code_version.cache_clear()
    about = somewhere / "genmill-0.1.0+gabcdef0.dist-info"
    about.mkdir()
    text = "Metadata-Version: 2.4\nName: genmill\nVersion: 0.1.0+gabcdef0\n"
    (about / "METADATA").write_text(text)
    monkeypatch.setattr(sys, "path", [str(somewhere), *sys.path])
    assert code_version() == "0.1.0+gabcdef0"


@pytest.mark.parametrize("stated", ["", "abcdef0", "abcdef0-dirty\n"])
def test_a_build_without_a_repository_takes_the_commit_that_it_is_given(somewhere, stated):
    (somewhere / "worker/commit.txt").write_text(stated)
    commit = stated.strip().replace("-", ".")
    assert version_to_build() == (f"{VERSION}+g{commit}" if commit else VERSION)
