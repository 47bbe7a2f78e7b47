"""Downloads into one folder, or into one inside it, at once: all succeed, with the same files."""

import shutil
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from threading import Barrier

import pytest

from db import jobs
from scheduler.results.download import download
from scheduler.results.folder_lock import alone_in
from tests.unit.scheduler.cli import conftest as made
from worker.services import Services
from worker.settings import Settings

FORMS = {
    "digits": ("gan", "image", ["files", "webdataset", "jsonl"]),
    "prose": ("gpt", "text", ["jsonl", "files"]),
}


@pytest.fixture
def services(tmp_path, database_url):
    opened = Services(Settings(_env_file=None, home=tmp_path / "home", database_url=database_url))
    yield opened
    opened.close()


def contents(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def until_waiting(caplog, folder):
    ends = time.monotonic() + 30
    while f"another download into {folder} is under way" not in caplog.text:
        assert time.monotonic() < ends
        time.sleep(0.01)


@pytest.mark.parametrize("model", FORMS)
def test_downloads_into_one_folder_wait_for_one_another(services, tmp_path, caplog, model):
    family, medium, forms = FORMS[model]
    made.add_model(services, model, family, {"media": medium, "labels": []})
    job_id = made.make_samples(services, model, 20, tmp_path)
    with services.database.read() as session:
        job = jobs.get(session, job_id)
    for form in forms:
        alone, together = tmp_path / "alone", tmp_path / "together"
        download(services, [job], alone, form=form)
        start = Barrier(4)

        def run(_: int, form: str = form, start: Barrier = start, folder: Path = together):
            start.wait()
            return download(services, [job], folder, form=form).samples

        with ThreadPoolExecutor(4) as threads:
            assert list(threads.map(run, range(4))) == [20] * 4
        assert contents(together) == contents(alone)
        shutil.rmtree(alone)
        shutil.rmtree(together)
    assert "another download into" in caplog.text


def test_a_download_of_several_jobs_waits_for_one_into_the_folder_of_a_job(
    services, tmp_path, caplog
):
    made.add_model(services, "prose", "gpt", {"media": "text", "labels": []})
    ids = [made.make_samples(services, "prose", 3, tmp_path) for _ in range(2)]
    with services.database.read() as session:
        found = [jobs.get(session, each) for each in ids]
    out = tmp_path / "out"
    with ThreadPoolExecutor(1) as pool:
        with alone_in(out / ids[1]):
            whole = pool.submit(download, services, found, out, form="files")
            until_waiting(caplog, out / ids[1])
            assert not whole.done()
        assert whole.result().samples == 6
    with alone_in(out), alone_in(out / ids[0]):  # nothing is held any more
        assert {path.name for path in out.iterdir()} == set(ids)


def test_a_download_into_the_folder_of_a_label_is_waited_for(services, tmp_path, caplog):
    made.add_model(services, "digits", "gan", {"media": "image", "labels": ["cat"]})
    job_id = made.make_samples(services, "digits", 3, tmp_path)
    with services.database.read() as session:
        job = jobs.get(session, job_id)
    out = tmp_path / "out"
    with ThreadPoolExecutor(1) as pool:
        with alone_in(out / "cat"):
            whole = pool.submit(download, services, [job], out, form="imagefolder")
            until_waiting(caplog, out / "cat")
        assert whole.result().samples == 3
