"""A home with a record and a store, and jobs in it that were really committed, without torch."""

import hashlib
import json
import shutil
import threading
from collections import defaultdict
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from db import datasets, jobs, models, shards
from db.states import JobState
from db.tables import DatasetVersion, ModelVersion
from scheduler.cli import run
from scheduler.submission.enqueue import enqueue
from worker.data.dataset import Shape
from worker.media import find_medium
from worker.media.samples.containers import SampleRecord
from worker.media.samples.record import Origin
from worker.services import Services, open_services
from worker.services.finalize import finalize, settle
from worker.services.samples import describe_index, store_index
from worker.settings import Settings
from worker.specs import parse_spec
from worker.store.packs import PackWriter

LABELS = ["cat", "dog"]
LOADABLE = Shape("image", ("cat", "dog"), size=8, channels=1)
MEDIA = defaultdict(lambda: "text", digits="image", voices="audio")  # what a model makes
WORDS = {"tunes": "t100 6{0}:4 what", "noises": "t100 {0}27:4"}  # 127 is the highest note
OTHER_WORDS = "text number {0}, 第{0}段"


@dataclass
class Result:
    code: int
    out: str
    err: str

    @property
    def json(self) -> Any:
        return json.loads(self.out)


Genmill = Callable[..., Result]


@pytest.fixture
def sqlite_home(tmp_path: Path, sqlite_template: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A fresh home, as a user has it who has set nothing else."""
    for name in Settings.model_fields:
        monkeypatch.delenv(f"GENMILL_{name.upper()}", raising=False)
    folder = tmp_path / "home"
    folder.mkdir()
    shutil.copy(sqlite_template, folder / "genmill.db")
    monkeypatch.setenv("GENMILL_HOME", str(folder))
    monkeypatch.chdir(tmp_path)
    return folder


@pytest.fixture
def home(sqlite_home: Path, database_url: str, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A fresh home, with the kind of database that this run tests."""
    if not database_url.startswith("sqlite:"):
        monkeypatch.setenv("GENMILL_DATABASE_URL", database_url)
    return sqlite_home


@pytest.fixture
def genmill(home: Path, capsys: pytest.CaptureFixture[str]) -> Genmill:
    """Run the command line in this process."""

    def call(*words: str) -> Result:
        capsys.readouterr()
        code = run(words)
        said = capsys.readouterr()
        return Result(code, said.out, said.err)

    return call


@pytest.fixture
def services(home: Path) -> Iterator[Services]:
    opened = open_services()
    yield opened
    opened.close()


@pytest.fixture
def digits(services: Services) -> str:
    """A conditional image model; its weights are not real, for no command reads them."""
    return add_model(services, "digits", "gan", {"media": "image", "labels": LABELS})


@pytest.fixture(scope="module")
def network(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a network with two labels, as a train job saves it."""
    from tests.families.kit import small_params
    from worker.engine.weights import save
    from worker.families import find_family

    gan, folder = find_family("gan"), tmp_path_factory.mktemp("network")
    save(gan.network()(small_params(gan), LOADABLE), folder, family=gan)
    return folder


@pytest.fixture
def loadable_digits(services: Services, network: Path) -> str:
    """A conditional image model, `digits`, whose weights an import can load."""
    files = {each.name: vars(services.store.put("jobs", each)) for each in network.iterdir()}
    with services.database.write() as session:
        models.add_version(
            session,
            name="digits",
            family="gan",
            params=json.loads((network / "config.json").read_text())["params"],
            files=files,
            weights_sha256=files["model.safetensors"]["sha256"],
            metrics={"loss": 1.5},
            shape=LOADABLE.to_json(),
        )
    return "digits"


@pytest.fixture
def prose(services: Services) -> str:
    """A text model."""
    return add_model(services, "prose", "gpt", {"media": "text", "labels": []})


@pytest.fixture
def pictures(services: Services) -> str:
    """The name of an image dataset on record."""
    summary = {
        "counts": {"train": 8, "validation": 1, "test": 1},
        "labels": LABELS,
        "shape": {"media": "image", "size": 8, "channels": 1},
        "rejected": 0,
        "size_bytes": 640,
    }
    with services.database.write() as session:
        datasets.add_version(
            session,
            name="pictures",
            kind="image",
            manifest_key=f"datasets/blobs/{'0' * 64}",
            manifest_sha256="0" * 64,
            summary=summary,
        )
    return "pictures"


@pytest.fixture
def family_tree(services: Services, digits: str, pictures: str) -> None:
    """digits:1 -> digits:2 (on pictures:1) -> digits:3, and copy:1 tuned from digits:2."""
    with services.database.write() as session:
        data = datasets.resolve(session, pictures)[1]
        first = models.resolve(session, "digits:1")[1]

        def add(name: str, parent: ModelVersion, dataset: DatasetVersion | None) -> ModelVersion:
            return models.add_version(
                session,
                name=name,
                family="gan",
                params={},
                files=first.files,
                weights_sha256=first.weights_sha256,
                metrics={},
                parent_id=parent.id,
                dataset_version_id=dataset and dataset.id,
            )

        second = add("digits", first, data)
        add("digits", second, None)
        add("copy", second, None)


@pytest.fixture
def picture_job(services: Services, digits: str, tmp_path: Path) -> str:
    """A succeeded generate job of five pictures in two shards."""
    return make_samples(services, digits, 5, tmp_path)


@pytest.fixture
def text_job(services: Services, prose: str, tmp_path: Path) -> str:
    """A succeeded generate job of three texts in two shards."""
    return make_samples(services, prose, 3, tmp_path)


@pytest.fixture
def sound_job(services: Services, tmp_path: Path) -> str:
    """A succeeded generate job of three sounds in two shards."""
    model = add_model(services, "voices", "wavenet", {"media": "audio", "labels": LABELS})
    return make_samples(services, model, 3, tmp_path)


@pytest.fixture
def note_job(services: Services, tmp_path: Path) -> str:
    """A succeeded generate job of three texts of notes in two shards."""
    model = add_model(services, "tunes", "hmm", {"media": "text", "labels": []})
    return make_samples(services, model, 3, tmp_path)


@pytest.fixture
def noise_job(services: Services, tmp_path: Path) -> str:
    """One of three texts, of which the last holds no note."""
    model = add_model(services, "noises", "hmm", {"media": "text", "labels": []})
    return make_samples(services, model, 3, tmp_path)


@pytest.fixture
def worker(services: Services, tmp_path: Path) -> Iterator[None]:
    """Something that does the next queued generate job, as soon as there is one."""

    def work() -> None:
        while not stop.wait(0.05):
            with services.database.read() as session:
                queued = jobs.listing(session, status=JobState.QUEUED)
            for job in queued:
                commit_job(services, job.id, tmp_path)

    stop = threading.Event()
    thread = threading.Thread(target=work)
    thread.start()
    yield
    stop.set()
    thread.join()


@pytest.fixture
def commit(services: Services, tmp_path: Path) -> Callable[[str], None]:
    """Do the work of a generate job."""
    return lambda job_id: commit_job(services, job_id, tmp_path)


def add_model(services: Services, name: str, family: str, shape: dict[str, Any]) -> str:
    config = json.dumps({"genmill": 1, "family": family, "params": {}, "shape": shape}).encode()
    blobs = {
        "config.json": services.store.put_bytes("models/blobs", config),
        "model.safetensors": services.store.put_bytes("models/blobs", safetensors()),
    }
    with services.database.write() as session:
        models.add_version(
            session,
            name=name,
            family=family,
            params={},
            files={file: vars(blob) for file, blob in blobs.items()},
            weights_sha256=blobs["model.safetensors"].sha256,
            metrics={"loss": 1.5},
        )
    return name


def safetensors() -> bytes:
    header = json.dumps({"w": {"dtype": "F32", "shape": [2], "data_offsets": [0, 8]}}).encode()
    return len(header).to_bytes(8, "little") + header + bytes(8)


def make_samples(services: Services, model: str, count: int, scratch: Path) -> str:
    """Enqueue, claim, write and commit as a worker does, and finish the job."""
    spec = {"kind": "generate", "model": model, "count": count, "seed": 7}
    job = enqueue(services, parse_spec(spec), shard_size=2)
    commit_job(services, job.id, scratch)
    return job.id


def commit_job(services: Services, job_id: str, scratch: Path) -> None:
    with services.database.read() as session:
        made = jobs.shards_of(session, job_id)
    for shard in made:
        commit_shard(services, shard.id, scratch)
    assert finalize(services, settle(services, [job_id]))
    with services.database.read() as session:
        assert jobs.get(session, job_id).status == JobState.SUCCEEDED


def commit_together(services: Services, job_ids: list[str], scratch: Path) -> None:
    """Commit the shards of several jobs in one pack, and finish the jobs together."""
    pack = PackWriter()
    for job_id in job_ids:
        with services.database.read() as session:
            made = jobs.shards_of(session, job_id)
        for shard in made:
            commit_shard(services, shard.id, scratch, pack)
    pack.store(services.store)
    assert set(finalize(services, settle(services, job_ids))) == set(job_ids)


def commit_shard(
    services: Services, shard_id: str, scratch: Path, pack: PackWriter | None = None
) -> None:
    with services.database.write() as session:
        claim = shards.claim(session, shard_id, owner="0" * 36, lease_s=60)
        assert claim
        job = jobs.get(session, claim.job_id)
    media = MEDIA[job.model]
    written = write(
        media,
        range(claim.start, claim.stop),
        scratch / "shard",
        words=WORDS.get(job.model, OTHER_WORDS),
        model=job.spec["model"],
    )
    data = written.read()
    if pack is None:
        services.store.put_bytes(f"jobs/{job.id}/blobs", data)
        packed, index = None, store_index(services.store, job.id, written.index)
    else:
        packed, index = pack.add(data), describe_index(written.index)
        pack.add(written.index.data if index.sha256 else b"")
    sha256 = hashlib.sha256(data).hexdigest()
    artifact = shards.NewArtifact(
        kind="samples",
        name=f"samples-{claim.idx:05d}{'.jsonl' if media == 'text' else '.tar'}",
        key=f"jobs/{job.id}/blobs/{sha256}",
        sha256=sha256,
        size=len(data),
        media_type=written.media_type,
        index=index,
        packed=packed,
    )
    with services.database.write() as session:
        shards.commit(session, claim, [artifact])


def write(media: str, indices: range, path: Path, *, words: str = "", model: str = "m:1") -> Any:
    weights = hashlib.sha256(safetensors()).hexdigest()
    origin = Origin("family", model, weights, 7, {}, 64, torch="0")
    with find_medium(media).open_writer(path, Shape(media, sample_rate=8000)) as writer:
        for index in indices:
            output = {
                "image": np.full((8, 8, 1), index * 10, np.uint8),
                "audio": np.linspace(0, index / 10, 80, dtype=np.float32),
                "text": words.format(index),
            }[media]
            writer.add([SampleRecord(index, output, origin.shared(label="cat"))])
        return writer.close()


@pytest.fixture(scope="session")
def tiny_llama(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A tiny Llama, as transformers saves it."""
    from tests.families.causal import write_base
    from tests.families.kit import SENTENCES

    return write_base(tmp_path_factory.mktemp("bases") / "tiny", SENTENCES, kind="llama")


@pytest.fixture
def tiny(tiny_llama: Path, home: Path) -> Path:
    """A copy of it in the working folder, `./tiny`."""
    return shutil.copytree(tiny_llama, Path("tiny"))
