import json
import pickle
from pathlib import Path

import pytest

from db import models
from worker.data.dataset import Shape
from worker.networks.version_folder import MAX_SMALL_BYTES

SHAPE = Shape("image", ("cat", "dog"), size=8, channels=1)


@pytest.fixture
def digits(loadable_digits):
    return loadable_digits


def test_list_shows_what_a_bare_name_means(genmill, services, digits):
    with services.database.write() as session:
        model, version = models.resolve(session, digits)
        models.set_alias(session, model, "champion", version)
    (row,) = genmill("model", "list", "--json").json
    assert (row["name"], row["version"], row["aliases"]) == ("digits", 1, {"champion": 1})
    assert "champion=1" in genmill("model", "list").out


def test_show_tells_files_metrics_and_versions(genmill, digits):
    shown = genmill("model", "show", "digits:1", "--json").json
    assert set(shown["files"]) == {"config.json", "model.safetensors"}
    assert shown["metrics"] == {"loss": 1.5}
    assert [each["version"] for each in shown["versions"]] == [1]
    assert "model.safetensors" in genmill("model", "show", "digits").out


def test_export_is_the_hugging_face_layout_and_comes_back_by_import(genmill, digits, tmp_path):
    out = genmill("model", "export", digits, "hf")
    assert (out.code, out.out) == (0, "hf\n"), out.err
    names = {path.name for path in (tmp_path / "hf").iterdir()}
    assert names == {"config.json", "model.safetensors", "README.md", "SHA256SUMS"}
    card = (tmp_path / "hf" / "README.md").read_text("utf-8")
    assert card.startswith("---\nlibrary_name: genmill\n")
    assert "arXiv:1511.06434" in card
    back = genmill("model", "import", "hf", "--name", "again", "--json").json
    old = genmill("model", "show", digits, "--json").json
    assert (back["version"], back["weights_sha256"]) == (1, old["weights_sha256"])
    assert genmill("model", "import", "hf", "--name", "again").out == "again:2\n"


def test_import_under_a_name_of_another_family_is_refused(genmill, digits, prose):
    genmill("model", "export", digits, "hf")
    wrong = genmill("model", "import", "hf", "--name", prose)
    assert wrong.code == 2
    assert "gpt" in wrong.err


def test_import_under_a_name_that_a_queued_job_will_give_to_another_family_is_refused(
    genmill, digits, pictures
):
    job = genmill("enqueue", "train", "vae", "--dataset", pictures, "--name", "new").out.strip()
    genmill("model", "export", digits, "hf")
    wrong = genmill("model", "import", "hf", "--name", "new")
    assert (wrong.code, f"which job {job} will create" in wrong.err) == (2, True)


@pytest.mark.parametrize("name", ["model.safetensors", "config.json", "SHA256SUMS"])
def test_a_byte_that_changed_since_the_export_is_refused_by_the_file_s_name(genmill, digits, name):
    genmill("model", "export", digits, "hf")
    whole = (Path("hf") / name).read_bytes()
    for at in (len(whole) - 2, len(whole) // 2):
        (Path("hf") / name).write_bytes(whole[:at] + bytes([whole[at] ^ 1]) + whole[at + 1 :])
        wrong = genmill("model", "import", "hf", "--name", "other")
        assert (wrong.code, wrong.err.count("\n")) == (2, 1)
        assert name in wrong.err
    assert len(genmill("model", "list", "--json").json) == 1


def test_a_file_that_an_export_had_must_be_there(genmill, digits):
    genmill("model", "export", digits, "hf")
    with (Path("hf") / "SHA256SUMS").open("a") as sums:
        sums.write(f"{'0' * 64}  tokenizer.json\n")
    wrong = genmill("model", "import", "hf", "--name", "other")
    assert (wrong.code, "tokenizer.json: not the file" in wrong.err) == (2, True)


@pytest.mark.parametrize("line", [b"no digest", b"%064d  ../secret" % 0, b"\xff"])
def test_a_list_of_digests_that_cannot_be_read_is_refused(genmill, digits, line):
    genmill("model", "export", digits, "hf")
    (Path("hf") / "SHA256SUMS").write_bytes(line)
    wrong = genmill("model", "import", "hf", "--name", "other")
    assert (wrong.code, wrong.err.count("\n"), "SHA256SUMS" in wrong.err) == (2, 1, True)


def test_an_imported_version_keeps_its_shape_on_record(genmill, services, digits):
    genmill("model", "export", digits, "hf")
    assert genmill("model", "import", "hf", "--name", "other").code == 0
    with services.database.read() as session:
        _, version = models.resolve(session, "other")
    assert version.shape == SHAPE.to_json()


def test_a_change_that_is_meant_is_taken_without_the_digests(genmill, digits):
    genmill("model", "export", digits, "hf")
    with (Path("hf") / "config.json").open("a") as config:
        config.write("\n")
    (Path("hf") / "SHA256SUMS").unlink()
    assert genmill("model", "import", "hf", "--name", "other").out == "other:1\n"


class Canary:
    def __reduce__(self):
        return Path.touch, (Path("canary"),)


@pytest.mark.parametrize(
    ("file", "content", "says"),
    [
        ("model.safetensors", pickle.dumps(Canary()), "not a safetensors file"),
        ("model.safetensors", b"", "not a safetensors file"),
        ("model.safetensors", (9).to_bytes(8, "little") + b"[1, 2, 3]", "damaged"),
        ("model.safetensors", (2).to_bytes(8, "little") + b"{}" + b"x" * 8, "8 bytes of tensors"),
        ("config.json", b"{", "not JSON"),
        ("config.json", b"[]", "not a JSON object"),
        ("config.json", b"{}", "no 'genmill'"),
        ("config.json", b'{"genmill": 1, "family": "gan", "params": []}', "'params'"),
        ("config.json", b" " * (MAX_SMALL_BYTES + 1), "larger than"),
    ],
)
def test_import_refuses_files_that_are_not_a_model(genmill, digits, file, content, says):
    genmill("model", "export", digits, "hf")
    (Path("hf") / file).write_bytes(content)
    wrong = genmill("model", "import", "hf", "--name", "other")
    assert (wrong.code, wrong.err.count("\n")) == (2, 1)
    assert says in wrong.err
    assert not Path("canary").exists()
    assert len(genmill("model", "list", "--json").json) == 1


def test_import_never_reads_a_pickle_in_place_of_safetensors(genmill, digits):
    genmill("model", "export", digits, "hf")
    (Path("hf") / "model.safetensors").unlink()
    (Path("hf") / "pytorch_model.bin").write_bytes(pickle.dumps(Canary()))
    wrong = genmill("model", "import", "hf", "--name", "other")
    assert wrong.code == 2
    assert "pytorch_model.bin may run code" in wrong.err
    assert not Path("canary").exists()


def test_import_of_an_unknown_family_is_code_4(genmill, digits):
    genmill("model", "export", digits, "hf")
    config = json.loads((Path("hf") / "config.json").read_text())
    (Path("hf") / "config.json").write_text(json.dumps(config | {"family": "gna"}))
    wrong = genmill("model", "import", "hf", "--name", "other")
    assert wrong.code == 4
    assert "'gan'" in wrong.err


def test_import_of_a_folder_that_is_none_is_refused(genmill):
    assert genmill("model", "import", "nowhere", "--name", "m").code == 2
