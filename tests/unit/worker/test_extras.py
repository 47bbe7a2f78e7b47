"""A package that is not installed is named with its extra and the line to type."""

import re
import sys
import tomllib
from pathlib import Path

import pytest

from db.errors import MissingPackage
from worker import extras
from worker.extras import EXTRAS, install_line, missing_package, needed_for, require

ROOT = Path(__file__).parents[3]


def test_the_extras_are_those_of_the_project():
    project = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))["project"]
    declared = project["optional-dependencies"]
    names = {
        extra: {re.split(r"[><=]", each)[0] for each in declared[extra]}
        for extra in declared.keys() - {"dev", "docs"}
    }
    assert {extra: set(known.values()) for extra, known in EXTRAS.items()} == names


def test_everything_that_is_missing_is_named_at_once(monkeypatch):
    for module in ("torch", "sklearn"):
        monkeypatch.setitem(sys.modules, module, None)
    with pytest.raises(MissingPackage) as raised:
        require("worker", "a worker", remedy="do without")
    assert raised.value.message == (
        "a worker needs torch and scikit-learn, which are not installed here"
    )
    assert raised.value.remedy == f"run `{install_line('worker')}`, or do without"
    assert raised.value.exit_code == 1


def test_what_is_installed_is_not_imported(monkeypatch):
    monkeypatch.delitem(sys.modules, "tensorboard", raising=False)
    require("tensorboard", "an event file")
    assert "tensorboard" not in sys.modules


def test_an_import_that_fails_is_told_by_its_package():
    told = pytest.raises(MissingPackage, match=r"^reading needs pyarrow, which is not installed")
    with told, needed_for("reading"):
        raise ModuleNotFoundError(name="pyarrow.parquet")
    with pytest.raises(ModuleNotFoundError, match="our own"), needed_for("reading"):
        raise ModuleNotFoundError("our own", name="worker.nothing")
    assert missing_package(ModuleNotFoundError("unnamed")) is None


def test_the_line_to_type_is_that_of_the_environment_in_use(monkeypatch, tmp_path):
    monkeypatch.setattr(extras.sys, "executable", str(tmp_path / "my env" / "python"))
    monkeypatch.setattr(extras.shutil, "which", lambda _: "/usr/bin/pip")
    assert install_line("worker") == f"'{tmp_path}/my env/python' -m pip install 'genmill[worker]'"
    monkeypatch.setattr(extras.shutil, "which", lambda _: str(tmp_path / "my env" / "pip"))
    assert install_line("worker") == "pip install 'genmill[worker]'"
