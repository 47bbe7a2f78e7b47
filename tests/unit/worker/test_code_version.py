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
    assert re.fullmatch(rf"{re.escape(VERSION)}(\+g[0-9a-f]{{7}})?", code_version())
    assert version("genmill").partition("+")[0] == VERSION


def commit(folder: Path, name: str) -> str:
    git(folder, "commit", "--quiet", "--allow-empty", "--message", name)
    return git(folder, "rev-parse", "--short=7", "HEAD")


def now() -> str:
    code_version.cache_clear()
    assert code_version() == version_to_build()
    return code_version()


def test_commits_are_told_apart_without_git(somewhere, monkeypatch):
    git(somewhere, "init", "--quiet")
    one, two = commit(somewhere, "one"), commit(somewhere, "two")
    git(somewhere, "tag", "kept")
    assert now() == f"{VERSION}+g{two}"
    git(somewhere, "pack-refs", "--all")
    assert now() == f"{VERSION}+g{two}"
    git(somewhere, "checkout", "--quiet", "--detach", one)
    # a hook of git sets these for what it runs
    monkeypatch.setenv("GIT_DIR", str(somewhere / "elsewhere"))
    monkeypatch.setenv("PATH", str(somewhere))
    assert now() == f"{VERSION}+g{one}"


@pytest.mark.parametrize("packed", [False, True])
def test_a_further_work_tree_has_a_commit_of_its_own(somewhere, monkeypatch, packed):
    git(somewhere, "init", "--quiet")
    commit(somewhere, "one")
    git(somewhere, "worktree", "add", "--quiet", "-b", "other", "tree")
    two = commit(somewhere / "tree", "two")
    if packed:
        git(somewhere, "pack-refs", "--all")
    monkeypatch.setattr(module, "_ROOT", somewhere / "tree")
    assert now() == f"{VERSION}+g{two}"


def test_in_a_broken_or_empty_repository_it_is_the_plain_version(somewhere):
    (somewhere / ".git").mkdir()
    assert now() == VERSION
    git(somewhere, "init", "--quiet")
    assert now() == VERSION
    (somewhere / ".git/HEAD").write_bytes(b"\xff")
    assert now() == VERSION


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
