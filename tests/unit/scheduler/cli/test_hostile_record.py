"""Whoever can write to the record or the store cannot make a command write outside its folder.

Each row changes one column, or one field of a stored document, into a name that leads elsewhere.
"""

import json
from pathlib import Path

import pytest
from sqlalchemy import select, update

from db import jobs, models
from db.errors import BadInput, GenmillError
from db.tables import Artifact, DatasetVersion, Job, ModelVersion
from tests.versions import add_dataset, add_version
from worker.cache import Cache
from worker.data import versions
from worker.shards.model_files import fetch_version

NAMES = ["../../planted", "a/../../../planted", "/{root}/planted", "..", ".planted", "sub/planted"]
KEYS = ["../../../planted", "/{root}/planted", "jobs/../../../planted", "jobs//x", ".tmp/x"]


@pytest.fixture(autouse=True)
def folder(home, tmp_path, monkeypatch):
    """Commands run three folders below `tmp_path`; nothing may appear beside or above them."""
    inner = tmp_path / "user" / "work" / "desk"
    inner.mkdir(parents=True)
    monkeypatch.chdir(inner)
    return inner


def outside(tmp_path: Path, folder: Path, home: Path) -> set[str]:
    """Whatever lies neither in the command's folder nor in the home."""
    found = (path for path in tmp_path.rglob("*") if not path.is_dir())
    return {
        str(path) for path in found if not path.is_relative_to(folder) and home not in path.parents
    }


def change(services, table, **values):
    with services.database.write() as session:
        session.execute(update(table).values(**values).execution_options(synchronize_session=False))


def refused(done) -> None:
    """An error that a person can read, without a traceback."""
    assert done.code in {1, 2, 4}, done.err
    assert done.err.startswith("Error: ")
    assert "Traceback" not in done.err


@pytest.fixture
def hostile(tmp_path, folder, home):
    """Goes through names or keys; nothing may lie outside after any of them."""

    def each(values):
        before = outside(tmp_path, folder, home)
        for value in values:
            yield value.replace("/{root}", str(tmp_path)) if isinstance(value, str) else value
            assert outside(tmp_path, folder, home) == before, value

    return each


@pytest.mark.parametrize("form", ["files", "webdataset", "jsonl"])
def test_the_id_of_an_artifact(genmill, services, picture_job, hostile, form):
    for number, name in enumerate(hostile(NAMES)):
        with services.database.write() as session:
            first = Artifact.name == "samples-00000.tar"
            session.execute(update(Artifact).where(first).values(id=name))
        done = genmill("artifact", "download", picture_job, "-o", f"out{number}", "--as", form)
        if form != "webdataset":  # whose objects keep their own names
            refused(done)


@pytest.mark.parametrize("form", ["files", "webdataset"])
def test_the_name_of_an_artifact(genmill, services, picture_job, hostile, form):
    with services.database.read() as session:
        artifact = session.scalars(select(Artifact.id)).first()
    for number, name in enumerate(hostile(NAMES)):
        with services.database.write() as session:
            session.execute(update(Artifact).where(Artifact.id == artifact).values(name=name))
        words = ("-o", f"out{number}", "--as", form)
        assert genmill("artifact", "download", picture_job, *words).code == 0


def test_the_key_of_an_artifact(genmill, services, picture_job, hostile):
    with services.database.read() as session:
        artifact = session.scalars(select(Artifact.id)).first()
    for key in hostile(KEYS):
        change(services, Artifact, other_key=key)
        refused(genmill("artifact", "download", picture_job, "-o", "out"))
        refused(genmill("artifact", "verify", picture_job))
        refused(genmill("artifact", "url", artifact))


def test_the_digest_of_an_artifact(genmill, services, picture_job, hostile):
    for digest in hostile(["../../planted", "0" * 64, "x"]):
        change(services, Artifact, sha256=digest)
        refused(genmill("artifact", "download", picture_job, "-o", "out"))


def test_the_id_of_a_job(genmill, services, picture_job, hostile):
    for name in hostile(NAMES):
        with services.database.write() as session:
            jobs.add(
                session, spec={}, spec_hash="0" * 64, kind="generate", model="digits",
                ranges=[(0, 1)], id=name,
            )  # fmt: skip
            session.execute(update(Artifact).values(job_id=name))
        for words in ((), ("-o", "out")):
            refused(genmill("artifact", "download", name, *words))
        refused(genmill("job", "export", name, "out"))


def test_the_names_of_a_version_s_files(genmill, services, digits, hostile):
    with services.database.read() as session:
        files = dict(models.resolve(session, digits)[1].files)
    for name in hostile(NAMES):
        for file in ("config.json", "model.safetensors"):
            others = {key: value for key, value in files.items() if key != file}
            change(services, ModelVersion, files=others | {name: files[file]})
            refused(genmill("model", "export", digits, "out"))
            refused(genmill("model", "export", digits, "out", "--merge"))


def test_the_keys_of_a_version_s_files(genmill, services, digits, hostile):
    with services.database.read() as session:
        files = dict(models.resolve(session, digits)[1].files)
    for key in hostile([*KEYS, 7, None]):
        changed = {name: each | {"key": key} for name, each in files.items()}
        change(services, ModelVersion, files=changed)
        refused(genmill("model", "export", digits, "out"))


def test_the_names_of_a_version_s_files_in_a_worker_s_cache(services, folder, home, hostile):
    version, cache = add_version(services.store, folder, 1), Cache(home / "cache", limit_bytes=9**9)
    files = dict(version.files)
    for name in hostile(NAMES):
        others = {key: value for key, value in files.items() if key != "config.json"}
        version.files = others | {name: files["config.json"]}
        with pytest.raises(BadInput, match="no plain name"):
            fetch_version(services.store, version, cache)


def test_the_digest_and_the_key_of_a_dataset_s_manifest(
    genmill, services, folder, hostile, tmp_path
):
    (folder / "book.txt").write_text("".join(f"line {n} of a text\n" for n in range(200)))
    assert genmill("dataset", "add", "book", "book.txt").code == 0
    with services.database.read() as session:
        row = session.scalars(select(DatasetVersion)).one()
    given = {"manifest_key": row.manifest_key, "manifest_sha256": row.manifest_sha256}
    digests = ("../../../planted", "/{root}/planted", ".planted")
    rows = [*(("manifest_sha256", each) for each in digests)]
    rows += [*(("manifest_key", each) for each in KEYS)]
    for (column, _), value in zip(rows, hostile([value for _, value in rows]), strict=True):
        change(services, DatasetVersion, **given | {column: value})
        refused(genmill("dataset", "show", "book", "--sheet", "page.txt"))


def test_what_a_dataset_s_manifest_names(services, folder, home, hostile):
    blob = add_dataset(services.store, folder, "a text of one line\n" * 50)
    cache = Cache(home / "cache", limit_bytes=1 << 30)
    with services.store.open(blob.key) as file:
        manifest = json.loads(file.read())
    names = [("name", name) for name in (*NAMES, 7, ["split.npy"], None)]
    digests = [("sha256", digest) for digest in ("../../../planted", 7, None)]
    rows = [*names, *digests]
    for (field, _), value in zip(rows, hostile([value for _, value in rows]), strict=True):
        first = manifest["objects"][0] | {field: value}
        changed = manifest | {"objects": [first, *manifest["objects"][1:]]}
        stored = services.store.put_bytes(versions.PREFIX, json.dumps(changed).encode())
        with pytest.raises(GenmillError, match=r"file of a dataset|not that of|object key|no obj"):
            versions.fetch(services.store, stored.key, stored.sha256, cache)


def test_the_key_of_a_manifest(genmill, services, picture_job, hostile):
    for key in hostile(KEYS):
        change(services, Job, manifest_key=key)
        refused(genmill("artifact", "verify", picture_job))


def test_a_planted_link_in_the_folder_of_a_download_is_not_followed(
    genmill, picture_job, tmp_path, folder
):
    """Such a folder comes out of an archive of strangers."""
    mine = tmp_path / "mine"
    mine.mkdir()
    (mine / "notes.txt").write_text("mine")
    for planted, target in ((".000000000.png.part", mine / "notes.txt"), (".genmill-parts", mine)):
        out = folder / f"out{planted}"
        out.mkdir()
        (out / planted).symlink_to(target)
        stopped = genmill("artifact", "download", picture_job, "-o", str(out))
        assert stopped.code in {2, 3}
        assert "link" in stopped.err
    assert [(path.name, path.read_text()) for path in mine.iterdir()] == [("notes.txt", "mine")]
