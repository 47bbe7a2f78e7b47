"""A worker dies at each step of publishing to each target: every item is there once, and whole."""

import os
import threading
import time
from contextlib import ExitStack

import pytest

from db import publications
from db.publications import Chosen
from db.states import FINAL
from scheduler.publishing.manage import add_target
from tests.chaos.scenarios import start, work_through, worker
from tests.chaos.test_failpoints import BOUND_S, TIMES
from tests.chaos.trial import AWAY_S, FOLDER
from tests.faulty_s3 import faulty_s3
from tests.keyrings import add_key, keyring_of
from tests.receivers import (
    VARIABLES,
    Bucket,
    GalleryBucket,
    GalleryFolder,
    Hook,
    HubServer,
    Mounted,
    SftpServer,
    WebdavServer,
)
from worker.marks.c2pa import MARK as C2PA
from worker.media import find_medium

COUNT = 6
IN_FOLDERS = {
    "folder": Mounted,
    "webdav": WebdavServer,
    "sftp": SftpServer,
    "gallery": GalleryFolder,
}
IN_BUCKETS = {"s3": Bucket, "gallery in a bucket": GalleryBucket}
KINDS = (*IN_FOLDERS, *IN_BUCKETS, "webhook", "hub")
POINTS = (
    *("claimed", "publication_begun", "publication_put", "publication_fetched"),
    *("publication_recorded", "publication_finished", "put_after", "committed", "finalized"),
)
BLIND = {"webhook"}  # they give nothing back

pytestmark = [
    pytest.mark.chaos,
    pytest.mark.timeout(300 + AWAY_S),
    pytest.mark.parametrize("places", [FOLDER], indirect=True),
]


@pytest.fixture(autouse=True)
def secrets(monkeypatch) -> None:
    for name, value in VARIABLES.items():
        monkeypatch.setenv(name, value)


@pytest.fixture
def receiver(request, tmp_path):
    kind = request.param
    with ExitStack() as opened:
        if kind in IN_BUCKETS:
            s3 = request.getfixturevalue("s3")
            front = opened.enter_context(faulty_s3(s3.endpoint_url))
            found = IN_BUCKETS[kind](s3, front)
        elif kind in IN_FOLDERS:
            found = IN_FOLDERS[kind](tmp_path / "root")
        else:
            found = Hook() if kind == "webhook" else HubServer()
        found.start()
        opened.callback(found.stop)
        yield found


def published(made, receiver, **more: str):
    """A job with signed samples, and one that is to publish them."""
    add_key(made.services.database, made.settings, "signing")
    job = made.generate(COUNT, marks={"name": "signed", "marks": ["record", "iptc", "c2pa"]})
    work_through(made, lambda: made.job(job.id).status in FINAL)
    settings = {"concurrency": "2", "tries": "2", "timeout_s": "5", **more}
    given = [*receiver.settings, *(f"{name}={value}" for name, value in settings.items())]
    add_target(
        made.services,
        "there",
        receiver.kind,
        receiver.address,
        settings=given,
        secrets=receiver.secrets,
    )
    return job, made.enqueue({"kind": "publish", "job": job.id, "target": "there"})


def check(made, receiver, job, publication) -> None:
    """Every item is there once, whole, signed, and verified."""
    made.row.recovered()
    made.check()
    assert receiver.digests() == sorted(made.digests(job.id))
    keys = keyring_of(made.services.database, made.settings)
    signed = [C2PA.read(data, keys, find_medium("image")) for data in receiver.contents()]
    assert [(each.state, each.says["trust"]) for each in signed] == [("present", "ours")] * COUNT
    with made.services.database.read() as session:
        rows = session.execute(publications.select_chosen(Chosen(by_job_id=publication.id))).all()
    assert [row.state for row, _ in rows] == ["published"] * COUNT
    verified = None if receiver.kind in BLIND else True
    assert [row.marks_verified for row, _ in rows] == [verified] * COUNT


@pytest.mark.parametrize(
    ("receiver", "point"),
    [
        (kind, point)
        for kind in KINDS
        for point in POINTS
        if not (kind in BLIND and point == "publication_fetched")
    ],
    indirect=["receiver"],
)
def test_a_worker_is_killed_at_a_step(trial, places, receiver, point) -> None:
    made = trial("sigkill while publishing", places, bound_s=BOUND_S, **TIMES)
    job, publication = published(made, receiver)
    process = start(worker, made.settings, f"{point}:sigkill:1", os.environ)
    process.join(60)
    assert point in made.struck(), (made.settings.home / "part.log").read_text()
    made.inject()
    work_through(made, lambda: made.job(publication.id).status in FINAL)
    check(made, receiver, job, publication)


@pytest.mark.parametrize("receiver", KINDS, indirect=True)
def test_a_target_that_is_away_for_a_while_counts_nothing(trial, places, receiver) -> None:
    made = trial("the target is down", places, bound_s=AWAY_S + BOUND_S, **TIMES)
    job, publication = published(made, receiver, rate="4")
    timers = [threading.Timer(0.6, receiver.stop), threading.Timer(AWAY_S, receiver.start)]
    for timer in timers:
        timer.start()
    made.inject()
    began = time.monotonic()
    work_through(made, lambda: made.job(publication.id).status in FINAL)
    assert time.monotonic() - began > 0.8 * AWAY_S
    assert made.counted(publication) == 0
    check(made, receiver, job, publication)


@pytest.mark.parametrize("receiver", KINDS, indirect=True)
@pytest.mark.parametrize("point", ["publication_removed", "publication_finished"])
def test_a_worker_is_killed_while_it_takes_down(trial, places, receiver, point) -> None:
    made = trial("sigkill while taking down", places, bound_s=BOUND_S, **TIMES)
    job, publication = published(made, receiver)
    work_through(made, lambda: made.job(publication.id).status in FINAL)
    check(made, receiver, job, publication)
    spec = {"kind": "publish", "job": job.id, "target": "there", "take_down": True}
    down = made.enqueue(spec)
    process = start(worker, made.settings, f"{point}:sigkill:1", os.environ)
    process.join(60)
    assert point in made.struck()
    made.inject()
    work_through(made, lambda: made.job(down.id).status in FINAL)
    made.row.recovered()
    made.check()
    assert receiver.digests() == []
    with made.services.database.read() as session:
        rows = session.execute(publications.select_chosen(Chosen(by_job_id=down.id))).all()
    assert [row.state for row, _ in rows] == ["taken down"] * COUNT
