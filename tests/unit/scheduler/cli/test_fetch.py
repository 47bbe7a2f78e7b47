"""Fetching parts of what jobs made, in other forms, and before they have ended."""

import errno
import json
import sys
from pathlib import Path

import pytest
from pyarrow import parquet

from db import jobs
from scheduler.results.table import Table
from scheduler.submission.enqueue import enqueue
from tests.unit.scheduler.cli.conftest import commit_shard
from worker.specs import parse_spec


def fetch(genmill, job, *words):
    done = genmill("artifact", "download", job, "-o", "out", *words)
    assert done.code == 0, done.err
    return done


def names(folder="out"):
    return sorted(str(p.relative_to(folder)) for p in Path(folder).rglob("*") if p.is_file())


def batch_of(genmill, services, commit, *lines):
    """A batch whose jobs are done, the last one first; its id, and those of its jobs in order."""
    Path("jobs.jsonl").write_text("\n".join(map(json.dumps, lines)))
    batch = genmill("enqueue", "batch", "jobs.jsonl").out.strip()
    with services.database.read() as session:
        made = sorted(job.id for job in jobs.listing(session, batch=batch))
    for job in reversed(made):
        commit(job)
    return batch, made


def line(model, count=1, **more):
    return {"kind": "generate", "model": model, "count": count, "seed": 7} | more


@pytest.fixture
def half_done(services, digits, tmp_path):
    """A running job of four pictures, two of which are committed."""
    spec = parse_spec({"kind": "generate", "model": digits, "count": 4, "seed": 7})
    job = enqueue(services, spec, shard_size=2)
    with services.database.read() as session:
        first, _ = jobs.shards_of(session, job.id)
    commit_shard(services, first.id, tmp_path)
    return job.id


def test_chosen_samples_are_downloaded_in_any_form(genmill, picture_job):
    fetch(genmill, picture_job, "--sample", "0,3-4")
    assert names() == [f"{i:09d}.{kind}" for i in (0, 3, 4) for kind in ("json", "png")]
    fetch(genmill, picture_job, "--sample", "3", "--sample", "1", "--as", "jsonl")
    rows = [json.loads(each) for each in Path("out/samples.jsonl").read_text().splitlines()]
    assert [row["index"] for row in rows] == [1, 3]


def test_a_chosen_sample_costs_a_read_of_its_own_bytes(
    genmill, services, digits, commit, monkeypatch
):
    job = genmill("enqueue", "generate", digits, "--count", "9").out.strip()
    commit(job)
    opened = []
    real = type(services.store).open

    def watched(self, key, *, start=0, stop=None):
        opened.append(None if stop is None else stop - start)
        return real(self, key, start=start, stop=stop)

    monkeypatch.setattr(type(services.store), "open", watched)
    [row] = [fetch(genmill, job, "--sample", "5", "--json").json]
    assert (row["samples"], names()) == (1, ["000000005.json", "000000005.png"])
    assert row["size_bytes"] in opened
    assert row["size_bytes"] < 4096


def test_samples_that_are_not_there_are_named(genmill, picture_job, digits, text_job):
    none = genmill("artifact", "download", picture_job, "-o", "out", "--sample", "7,9-11")
    assert none.code == 4
    assert none.err == f"Error: job {picture_job} has no sample 7,9-11; it has 5, from 0\n"
    some = genmill("artifact", "download", picture_job, "-o", "out", "--sample", "4-5")
    assert some.code == 4
    assert f"job {picture_job} has no sample 5; the others are in out" in some.err
    assert names() == ["000000004.json", "000000004.png"]


def test_what_is_no_number_is_refused_with_an_example(genmill):
    for value in ("x", "3-1", "1,,2", "-1", "", "99999999999"):
        wrong = genmill("artifact", "download", "0199", f"--sample={value}")
        assert (wrong.code, wrong.out) == (2, "")
        assert "write numbers and ranges as in 17,20-30" in wrong.err


def test_files_whose_names_match_a_pattern_are_downloaded(genmill, picture_job):
    fetch(genmill, picture_job, "--pattern", "*.png", "--pattern", "*3.json")
    assert names() == sorted([*(f"{i:09d}.png" for i in range(5)), "000000003.json"])
    again = fetch(genmill, picture_job, "--pattern", "*.png")
    assert "5 samples" in again.err


def test_a_pattern_that_nothing_matches_is_an_error(genmill, picture_job, text_job):
    for job, pattern in ((picture_job, "*.jpg"), (text_job, "*.png")):
        none = genmill("artifact", "download", job, "-o", "out", "--pattern", pattern)
        assert (none.code, f"no file matches {pattern}" in none.err) == (4, True)


def test_patterns_choose_objects_and_files_of_many_samples_by_their_names(
    genmill, picture_job, text_job
):
    fetch(genmill, picture_job, "--as", "webdataset", "--pattern", "samples-0000[12].tar")
    assert names() == ["samples-00001.tar", "samples-00002.tar"]
    fetch(genmill, text_job, "--pattern", "*.jsonl")
    assert "samples.jsonl" in names()


def test_pictures_as_parquet_hold_their_bytes_and_records(genmill, picture_job):
    fetch(genmill, picture_job)
    fetch(genmill, picture_job, "--as", "parquet")
    table = parquet.read_table("out/samples.parquet")
    rows = table.to_pylist()
    assert [row["index"] for row in rows] == [0, 1, 2, 3, 4]
    for row in rows:
        path = Path("out", row["image"]["path"])
        assert path.read_bytes() == row["image"]["bytes"]
        record = json.loads(path.with_suffix(".json").read_text("utf-8"))
        assert row.items() >= (record | {"sampling": "{}", "job": picture_job}).items()
    said = json.loads(table.schema.metadata[b"huggingface"])
    assert said == {"info": {"features": {"image": {"_type": "Image"}}}}


def test_sounds_and_texts_as_parquet(genmill, sound_job, text_job):
    fetch(genmill, sound_job, "--as", "parquet")
    [first, *_] = parquet.read_table("out/samples.parquet").to_pylist()
    assert (first["audio"]["path"], first["audio"]["bytes"][:4]) == ("000000000.wav", b"RIFF")
    Path("out/samples.parquet").unlink()
    fetch(genmill, text_job, "--as", "parquet")
    table = parquet.read_table("out/samples.parquet")
    assert table.schema.names[0] == "text"
    assert table["text"].to_pylist()[2] == "text number 2, 第2段"


def test_a_table_is_written_in_groups(genmill, picture_job, monkeypatch):
    monkeypatch.setattr("scheduler.results.table.GROUP_ROWS", 2)
    fetch(genmill, picture_job, "--as", "parquet")
    file = parquet.ParquetFile("out/samples.parquet")
    assert [file.metadata.row_group(i).num_rows for i in range(3)] == [2, 2, 1]
    assert file.read()["index"].to_pylist() == [0, 1, 2, 3, 4]


def test_an_interrupted_table_leaves_the_former_one_and_is_begun_anew(
    genmill, picture_job, monkeypatch
):
    fetch(genmill, picture_job, "--as", "parquet")
    before = Path("out/samples.parquet").read_bytes()
    flushed, flush = [], Table._flush

    def full(self):
        flushed.append(self)
        if len(flushed) == 2:
            raise OSError(errno.ENOSPC, "the disk is full")
        flush(self)

    with monkeypatch.context() as patch:
        patch.setattr("scheduler.results.table.GROUP_ROWS", 2)
        patch.setattr(Table, "_flush", full)
        stopped = genmill("artifact", "download", picture_job, "-o", "out", "--as", "parquet")
    assert stopped.code == 3
    assert Path("out/samples.parquet").read_bytes() == before
    fetch(genmill, picture_job, "--as", "parquet")
    assert names() == ["samples.parquet"]


def test_without_pyarrow_the_message_says_what_to_install(genmill, picture_job, monkeypatch):
    monkeypatch.setitem(sys.modules, "pyarrow", None)
    wrong = genmill("artifact", "download", picture_job, "-o", "out", "--as", "parquet")
    assert wrong.code == 1
    assert "Parquet needs pyarrow, which is not installed here; run `" in wrong.err
    assert names() == []


def test_a_folder_of_labels_is_read_back_as_a_dataset(genmill, picture_job):
    fetch(genmill, picture_job, "--as", "imagefolder")
    assert names() == [*(f"cat/{i:09d}.png" for i in range(5)), "metadata.jsonl"]
    rows = [json.loads(each) for each in Path("out/metadata.jsonl").read_text().splitlines()]
    assert rows[3].items() >= {"file_name": "cat/000000003.png", "label": "cat", "index": 3}.items()
    assert all(value is not None for row in rows for value in row.values())
    added = genmill("dataset", "add", "cats", "out", "--blank", "keep", "--json")
    assert added.code == 0, added.err
    assert added.json["labels"] == ["cat"]


def test_sounds_have_folders_of_labels_too(genmill, sound_job):
    fetch(genmill, sound_job, "--as", "audiofolder")
    assert names() == [*(f"cat/{i:09d}.wav" for i in range(3)), "metadata.jsonl"]
    [first, *_] = Path("out/metadata.jsonl").read_text().splitlines()
    assert json.loads(first)["file_name"] == "cat/000000000.wav"


def test_names_of_folders_and_descriptions_follow_from_records():
    from scheduler.results.sinks import described, label_folder

    labels = ["3", "第三", "a/b", "../up", ".hidden", "", "..", "x" * 300, None]
    folders = ["3/", "第三/", "a_b/", "_up/", "hidden/", "_/", "_/", "x" * 60 + "/", ""]
    assert [label_folder(label) for label in labels] == folders
    record = {"prompt": "a bold seven", "label": None, "index": 1, "sampling": {"a": 1}}
    assert described("1.png", record) == {"file_name": "1.png", "text": "a bold seven", "index": 1}


def test_lines_of_pictures_name_their_files(genmill, services, picture_job, digits, commit):
    fetch(genmill, picture_job)
    fetch(genmill, picture_job, "--as", "jsonl")
    rows = [json.loads(each) for each in Path("out/samples.jsonl").read_text().splitlines()]
    assert all(Path("out", row["file_name"]).is_file() for row in rows)
    Path("out/samples.jsonl").unlink()
    batch, made = batch_of(genmill, services, commit, line(digits, 2), line(digits))
    fetch(genmill, batch)
    fetch(genmill, batch, "--as", "jsonl")
    rows = [json.loads(each) for each in Path("out/samples.jsonl").read_text().splitlines()]
    assert [row["file_name"] for row in rows] == [
        f"{made[0]}/000000000.png", f"{made[0]}/000000001.png", f"{made[1]}/000000000.png"
    ]  # fmt: skip
    assert all(Path("out", row["file_name"]).is_file() for row in rows)


def test_texts_of_a_batch_are_one_file_in_its_order(genmill, services, prose, commit):
    ids = [f"q{n}" for n in (3, 1, 2)]
    lines = [line(prose, custom_id=each) for each in ids]
    batch, made = batch_of(genmill, services, commit, *lines)
    done = fetch(genmill, batch, "--json").json
    assert (done["samples"], done["expected"], done["partial"]) == (3, 3, False)
    assert names() == ["samples.jsonl"]
    assert len(Path("out/samples.jsonl").read_text("utf-8").splitlines()) == 3
    fetch(genmill, batch, "--as", "parquet")
    assert parquet.read_table("out/samples.parquet")["job"].to_pylist() == made


def test_a_batch_of_two_media_has_a_table_for_each(genmill, services, prose, digits, commit):
    batch, _ = batch_of(genmill, services, commit, line(prose), line(digits))
    fetch(genmill, batch, "--as", "parquet")
    assert names() == ["samples-image.parquet", "samples.parquet"]


def test_what_is_there_of_a_running_job_is_taken_only_if_asked_for(
    genmill, services, half_done, tmp_path
):
    refused = genmill("artifact", "download", half_done, "-o", "out")
    assert (refused.code, refused.out) == (2, "")
    assert refused.err == (
        f"Error: job {half_done} is running: 2 of 4 samples are there so far; wait for the rest "
        f"with `genmill job wait {half_done}`, or take these with --partial\n"
    )
    part = fetch(genmill, half_done, "--partial")
    assert "partial: 2 of 4 samples so far; run the same command again for the rest" in part.err
    assert len(names()) == 4
    with services.database.read() as session:
        _, second = jobs.shards_of(session, half_done)
    commit_shard(services, second.id, tmp_path)
    untouched = Path("out/000000000.png").stat().st_ino
    rest = fetch(genmill, half_done, "--partial", "--json").json
    assert (rest["samples"], rest["expected"]) == (4, 4)
    assert len(names()) == 8
    assert Path("out/000000000.png").stat().st_ino == untouched


def test_a_cancelled_job_gives_what_it_made_and_says_how_much(genmill, half_done):
    genmill("job", "cancel", half_done)
    done = fetch(genmill, half_done)
    assert "incomplete: 4 samples were asked for, 2 were made" in done.err
    assert fetch(genmill, half_done, "--json").json["partial"] is True


@pytest.mark.slow
def test_tables_and_folders_are_opened_by_pandas_polars_and_datasets(
    genmill, picture_job, sound_job, text_job, tmp_path, monkeypatch
):
    import datasets
    import pandas
    import polars

    fetch(genmill, picture_job, "--as", "parquet")
    file = "out/samples.parquet"
    assert list(pandas.read_parquet(file)["index"]) == [0, 1, 2, 3, 4]
    assert polars.read_parquet(file)["image"].struct.field("bytes")[0].startswith(b"\x89PNG")
    cache = str(tmp_path / "cache")
    rows = datasets.load_dataset("parquet", data_files=file, split="train", cache_dir=cache)
    assert rows[3]["image"].size == (8, 8)
    Path(file).unlink()
    fetch(genmill, sound_job, "--as", "parquet")
    rows = datasets.load_dataset("parquet", data_files=file, split="train", cache_dir=cache)
    assert isinstance(rows.features["audio"], datasets.Audio)
    Path(file).unlink()
    fetch(genmill, text_job, "--as", "parquet")
    rows = datasets.load_dataset("parquet", data_files=file, split="train", cache_dir=cache)
    assert rows[0]["text"] == "text number 0, 第0段"
    genmill("artifact", "download", picture_job, "-o", "folder", "--as", "imagefolder")
    rows = datasets.load_dataset("imagefolder", data_dir="folder", split="train", cache_dir=cache)
    assert isinstance(rows.features["image"], datasets.Image)
    assert (rows[4]["label"], rows[4]["index"], rows[4]["image"].size) == ("cat", 4, (8, 8))
