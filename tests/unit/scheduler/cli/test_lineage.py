"""Where artifacts, versions and data come from, and what came of them."""

import json
from pathlib import Path

import pytest

from db import datasets, jobs, models
from db.session import clock
from db.tables import Evaluation


@pytest.fixture
def downloaded(genmill, picture_job, tmp_path):
    assert genmill("artifact", "download", picture_job, "-o", "out").code == 0
    return tmp_path / "out"


def test_a_downloaded_picture_names_its_origin_and_is_intact(genmill, picture_job, downloaded):
    shown = genmill("artifact", "show", str(downloaded / "000000003.png"), "--json").json
    assert (shown["job"], shown["intact"]) == (picture_job, True)
    assert shown["versions"][0]["version"] == "digits:1"
    assert shown["record"]["index"] == 3
    assert shown["record"]["seed"] == 7
    assert shown["record"]["genmill"]


def test_a_changed_picture_is_not_intact(genmill, picture_job, downloaded):
    path = downloaded / "000000003.png"
    path.write_bytes(path.read_bytes() + b" ")
    shown = genmill("artifact", "show", str(path), "--json").json
    assert (shown["job"], shown["intact"]) == (picture_job, False)


def test_a_line_of_texts_names_its_origin(genmill, text_job, tmp_path):
    genmill("artifact", "download", text_job, "-o", "out")
    path = str(tmp_path / "out/samples.jsonl")
    shown = genmill("artifact", "show", path, "--line", "3", "--json").json
    assert (shown["job"], shown["intact"], shown["record"]["index"]) == (text_job, True, 2)
    missing = genmill("artifact", "show", path, "--line", "4")
    assert missing.code == 2
    assert "3 lines" in missing.err


def test_a_sound_names_its_origin(genmill, sound_job, tmp_path):
    genmill("artifact", "download", sound_job, "-o", "out")
    [path] = (tmp_path / "out").glob("*1.wav")
    shown = genmill("artifact", "show", str(path), "--json").json
    assert (shown["job"], shown["intact"], shown["record"]["index"]) == (sound_job, True, 1)


@pytest.mark.parametrize("name", ["nothing.png", "empty.png", "strange.bin"])
def test_what_is_no_sample_is_refused_by_its_name(genmill, tmp_path, name):
    if name != "nothing.png":
        (tmp_path / name).write_bytes(b"" if name == "empty.png" else b"\x00\x01" * 50)
    done = genmill("artifact", "show", name)
    assert done.code in {1, 2, 4}
    assert name in done.err
    assert "Traceback" not in done.err


@pytest.mark.parametrize(
    "change", [{"seed": "7"}, {"index": None}, {"seed": None}, {"index": True}]
)
def test_a_record_that_was_edited_is_refused_in_words(genmill, text_job, tmp_path, change):
    genmill("artifact", "download", text_job, "-o", "out")
    path = tmp_path / "out/samples.jsonl"
    record = json.loads(path.read_text("utf-8").splitlines()[0]) | change
    path.write_text(json.dumps(record))
    done = genmill("artifact", "show", str(path))
    assert (done.code, "no complete record" in done.err) == (2, True)


def test_an_artifact_on_record_names_its_origin(genmill, picture_job):
    [first, *_] = genmill("artifact", "list", picture_job, "--json").json
    shown = genmill("artifact", "show", first["id"], "--json").json
    assert (shown["job"], shown["record"]["index"]) == (picture_job, 0)
    assert shown["versions"][0]["version"] == "digits:1"
    assert genmill("artifact", "show", first["id"]).code == 0
    assert genmill("artifact", "show", "0199ffff").code == 4


@pytest.mark.usefixtures("family_tree")
def test_a_version_names_its_ancestors_and_descendants(genmill):
    lineage = genmill("model", "show", "digits:2", "--lineage", "--json").json["lineage"]
    assert [each["version"] for each in lineage["ancestors"]] == ["digits:1"]
    assert sorted(each["version"] for each in lineage["descendants"]) == ["copy:1", "digits:3"]
    text = genmill("model", "show", "digits:2", "--lineage").out
    assert "digits:3" in text
    assert "pictures:1" in text


@pytest.mark.usefixtures("family_tree", "picture_job")
def test_data_name_every_version_and_job_that_uses_them(genmill, pictures):
    used = genmill("dataset", "show", pictures, "--used-by", "--json").json["used_by"]
    named = {each["version"]: each for each in used["models"]}
    assert set(named) == {"digits:2", "digits:3", "copy:1"}
    assert named["digits:2"]["generate_jobs"] == 0
    plain = genmill("dataset", "show", pictures, "--json").json
    assert "used_by" not in plain
    assert "copy:1" in genmill("dataset", "show", pictures, "--used-by").out


def test_curves_and_evaluations_are_read_by_tensorboard(genmill, services, digits, pictures):
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    job = genmill("enqueue", "train", "gan", "--dataset", pictures, "--name", "new").out.strip()
    curve = {step: 1 / (1 + step) for step in range(0, 100, 10)}
    with services.database.write() as session:
        for step, value in curve.items():
            jobs.add_points(session, job, step, {"loss": value})
        version = models.resolve(session, digits)[1]
        number = {"value": 7.5, "low": 7.0, "high": 8.0, "real": None}
        session.add(
            Evaluation(
                version_id=version.id,
                dataset_version_id=datasets.resolve(session, pictures)[1].id,
                job_id=job,
                protocol={},
                protocol_sha256="0" * 64,
                numbers={"fid": number},
                items_key="k",
                items_sha256="1" * 64,
                created_at=clock(session),
            )
        )
    done = genmill("job", "export", job, "runs/one", "--as", "tensorboard", "--json").json
    read = EventAccumulator("runs/one").Reload()
    assert {event.step: pytest.approx(event.value) for event in read.Scalars("loss")} == curve
    assert sorted(read.Tags()["scalars"]) == [
        "evaluation/fid",
        "evaluation/fid/high",
        "evaluation/fid/low",
        "loss",
    ]
    genmill("job", "export", job, "runs/two")
    [other] = Path("runs/two").iterdir()
    assert other.read_bytes() == Path(done["file"]).read_bytes()


def test_a_job_without_curves_is_refused(genmill, picture_job):
    done = genmill("job", "export", picture_job, "runs")
    assert done.code == 2
    assert "neither curves nor evaluations" in done.err
    assert json.loads(genmill("job", "list", "--json").out)
