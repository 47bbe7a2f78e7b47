"""Downloads into a folder with other samples: nothing is lost, and the message says what to do."""

import json
from pathlib import Path

import pytest

from tests.unit.scheduler.cli.conftest import add_model, make_samples

FORMS = ("files", "webdataset", "jsonl", "parquet", "imagefolder")


@pytest.fixture
def two_jobs(services, family_tree, tmp_path):
    """Five pictures each of two versions of a model."""
    return [make_samples(services, f"digits:{number}", 5, tmp_path) for number in (1, 3)]


def download(genmill, job, *words):
    return genmill("artifact", "download", job, "-o", "out", *words)


def contents():
    return {path: path.read_bytes() for path in Path("out").rglob("*") if path.is_file()}


def refused(done, what):
    assert (done.code, done.out) == (2, "")
    assert what in done.err
    assert "; choose another folder with -o, or remove what is there\n" in done.err


@pytest.mark.parametrize("form", FORMS)
def test_samples_of_another_job_are_not_replaced(genmill, two_jobs, form):
    first, second = two_jobs
    assert download(genmill, first, "--as", form).code == 0
    before = contents()
    what = "samples that would be lost"
    if form in {"files", "imagefolder"}:
        what = "is another sample: number 0 of digits:1, seed 7"
    refused(download(genmill, second, "--as", form), what)
    assert contents() == before
    assert download(genmill, first, "--as", form).code == 0
    assert contents() == before


@pytest.mark.parametrize("form", FORMS[1:4])
def test_chosen_samples_do_not_replace_the_whole_but_the_whole_replaces_them(
    genmill, picture_job, form
):
    for _ in range(2):
        assert download(genmill, picture_job, "--as", form, "--sample", "1,3").code == 0
    assert download(genmill, picture_job, "--as", form).code == 0
    before = contents()
    refused(download(genmill, picture_job, "--as", form, "--sample", "1,3"), "would be lost")
    assert contents() == before


def test_texts_of_another_job_are_not_replaced(genmill, services, text_job, tmp_path):
    assert download(genmill, text_job, "--as", "files").code == 0
    before = contents()
    add_model(services, "essays", "gpt", {"media": "text", "labels": []})
    other = make_samples(services, "essays", 3, tmp_path)
    refused(download(genmill, other, "--as", "files"), "is another sample: number 0 of prose:1")
    assert contents() == before


def test_what_someone_else_has_put_there_is_not_replaced(genmill, text_job):
    own = Path("out/samples.jsonl")
    own.parent.mkdir()
    own.write_text(json.dumps({"prompt": "mine"}) + "\n")
    refused(download(genmill, text_job), "samples.jsonl has samples that would be lost")
    assert json.loads(own.read_text()) == {"prompt": "mine"}
    own.with_suffix(".parquet").write_bytes(b"PAR1 of another kind")
    refused(download(genmill, text_job, "--as", "parquet"), "samples.parquet has samples")


def test_a_damaged_tar_is_fetched_again(genmill, picture_job):
    assert download(genmill, picture_job, "--as", "webdataset").code == 0
    before = contents()
    for damaged in (b"torn", before[Path("out/samples-00000.tar")][:-512]):
        Path("out/samples-00000.tar").write_bytes(damaged)
        assert download(genmill, picture_job, "--as", "webdataset").code == 0
        assert contents() == before
