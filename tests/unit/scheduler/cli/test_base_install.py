"""The base install, without the packages of any extra: nothing that needs one is silent."""

import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from safetensors.numpy import save_file

from db.errors import MissingPackage
from scheduler.results import event_files
from tests.commands import RUNNING, WORDS, words_of
from worker.extras import EXTRAS

PACKAGES = {module for packages in EXTRAS.values() for module in packages}
LINE = "install 'genmill[worker]'`"


@pytest.fixture
def base(monkeypatch):
    """None of the extras' packages can be imported, nor what has imported them before."""
    for name in [*PACKAGES, *sys.modules]:
        if name.partition(".")[0] in PACKAGES:
            monkeypatch.setitem(sys.modules, name, None)
    for name in (
        *("worker.engine.inspection", "worker.families.gan.model"),
        "worker.evaluation.image_models",
    ):
        monkeypatch.delitem(sys.modules, name, raising=False)


@pytest.mark.parametrize(
    "words", [["up"], ["up", "--workers", "2", "--detach"], ["worker"], ["demo"]], ids=" ".join
)
def test_what_runs_models_ends_at_once_with_the_line_to_type(base, genmill, home, words):
    before = {*home.iterdir()}
    told = genmill(*words)
    assert (told.code, told.out, told.err.count("\n")) == (1, "", 1)
    assert "torch, transformers" in told.err
    assert LINE in told.err
    assert {*home.iterdir()} == before
    assert not Path("genmill-demo").exists()


def test_doctor_says_so_and_finishes_its_other_checks(base, genmill):
    told = genmill("doctor", "--json")
    assert told.code == 1
    checks = {check["check"]: check for check in told.json}
    assert len(checks) > 10
    assert not checks["torch"]["ok"]
    assert LINE in checks["torch"]["remedy"]


def test_doctor_names_the_version_of_what_is_installed(genmill):
    told = genmill("doctor", "--check", "torch")
    assert told.code == 0
    assert "PyTorch 2" in told.out


def test_a_model_that_cannot_be_tried(base, genmill, digits):
    assert genmill("model", "export", "digits", "folder").code == 0
    told = genmill("model", "import", "folder", "--name", "again")
    assert told.code == 1
    assert "trying the model needs torch, which is not installed here; run `" in told.err
    assert "or import it where a worker is installed" in told.err


def test_the_folder_of_a_judge_is_checked_by_its_headers(base, genmill, digits, pictures):
    folder = Path("vit")
    folder.mkdir()
    (folder / "config.json").write_text('{"model_type": "vit"}')
    save_file({"a": np.zeros(3, np.float32)}, folder / "model.safetensors")
    words = ["enqueue", "finetune", "digits", "--dataset", "pictures", "--evaluate"]
    words += ["--evaluate-judge", "vit"]
    assert genmill(*words, "--dry-run").code == 0
    (folder / "model.safetensors").write_bytes(b"weights")
    told = genmill(*words)
    assert (told.code, "vit/model.safetensors: not a safetensors file" in told.err) == (2, True)


def test_an_event_file(base):
    with pytest.raises(MissingPackage, match="an event file needs tensorboard"):
        event_files._tensorboard()


def test_captions_in_parquet(base, genmill):
    folder = Path("pictures")
    folder.mkdir()
    (folder / "metadata.parquet").write_bytes(b"PAR1")
    Image.new("L", (8, 8), 40).save(folder / "a.png")
    told = genmill("dataset", "add", "pictures", str(folder))
    assert told.code == 1
    assert "Parquet needs pyarrow" in told.err


def test_the_data_of_the_demo(base, genmill):
    told = genmill("demo", "--write-data", "data")
    assert told.code == 1
    assert "the demo needs scikit-learn" in told.err
    assert not Path("data").exists()


def test_an_import_that_nobody_foresaw(base, genmill, monkeypatch):
    def fail(*_):
        import torch  # noqa: F401

    monkeypatch.setattr("worker.families.families", fail)
    told = genmill("family", "list")
    assert told.code == 1
    assert "this command needs torch, which is not installed here" in told.err


@pytest.mark.slow
@pytest.mark.parametrize("command", sorted(WORDS.keys() - RUNNING))
def test_no_other_command_misses_anything(base, genmill, command):
    told = genmill(*words_of(command))
    assert "unforeseen" not in told.err
    assert "not installed" not in told.err or command in {"doctor", "model import"}
