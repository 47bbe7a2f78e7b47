"""Several downloads into one folder at once: all succeed, with the same files."""

import shutil
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from threading import Barrier

import pytest

from db import jobs
from scheduler.results.download import download
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
