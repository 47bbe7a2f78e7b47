"""What is published stays on record and in the store; what has expired or is withdrawn goes."""

import shutil
from datetime import datetime, timedelta

import pytest
from sqlalchemy import select

from db import jobs, models, targets
from db.tables import DatasetVersion, Job, Publication
from scheduler.dispatch.expiry import take_down_expired
from tests.publications import add_target, publish, take_all_down
from tests.site_pages import check_links, folder, listed, pages_of, read_site

from .conftest import make_samples
from .test_publish import published as counted
from .test_publish import work
from .test_withdraw import faces

__all__ = ["faces", "work"]  # fixtures

PAST, FUTURE = timedelta(seconds=-5), timedelta(days=90)


@pytest.fixture
def published(services, picture_job) -> str:
    """A job of which two samples are at a target for ninety days."""
    with services.database.write() as session:
        publish(session, add_target(session), job_id=picture_job, expires_in=FUTURE)
    return picture_job


def take_downs(services) -> list[dict]:
    with services.database.read() as session:
        jobs = session.scalars(select(Job).where(Job.kind == "publish").order_by(Job.id))
        return [job.spec for job in jobs]


def expire(services) -> None:
    with services.database.write() as session:
        for each in session.scalars(select(Publication)):
            each.expires_at = each.published_at + PAST


@pytest.mark.parametrize("options", [(), ("--keep-artifacts",)])
def test_a_job_whose_samples_are_published_is_not_removed(genmill, services, published, options):
    held = genmill("job", "remove", published, "--yes", *options)
    assert held.code == 2
    assert "2 of its samples are at the target site" in held.err
    assert f"genmill publish {published} --target site --take-down" in held.err
    assert genmill("artifact", "verify", published).code == 0
    with services.database.write() as session:
        take_all_down(session)
    assert genmill("job", "remove", published, "--yes", *options).code == 0


def test_pruning_passes_over_what_is_published(genmill, services, published):
    with services.database.write() as session:
        job = jobs.get(session, published)
        job.finished_at = job.finished_at - FUTURE
    done = genmill("db", "prune", "--kind", "jobs", "--older-than", "1d", "--yes")
    assert done.code == 0, done.err
    assert f"job {published} stays: 2 of its samples are at the target site" in done.err
    assert genmill("artifact", "verify", published).code == 0


def test_a_model_whose_files_are_published_is_not_removed(genmill, services, digits):
    with services.database.write() as session:
        version = models.resolve(session, digits)[1]
        publish(session, add_target(session, "hub"), version_id=version.id, samples=(0, 1, 2))
    held = genmill("model", "remove", "digits:1", "--yes")
    assert held.code == 2
    assert "it is at the target hub (`genmill publish digits:1 --target hub" in held.err
    with services.database.write() as session:
        take_all_down(session)
    assert genmill("model", "remove", "digits:1", "--yes").code == 0


def test_what_has_expired_is_taken_down_by_a_job_and_nothing_else_is(services, published, digits):
    assert take_down_expired(services) == 0
    expire(services)
    with services.database.write() as session:
        version = models.resolve(session, digits)[1]
        site, hub = targets.get(session, "site"), add_target(session, "hub")
        publish(session, site, version_id=version.id, expires_in=FUTURE)
        publish(session, hub, version_id=version.id, expires_in=PAST)
    assert take_down_expired(services) == 2
    assert take_down_expired(services) == 0  # the jobs have not ended
    found = {(each["target"], each["job"] or each["model"]) for each in take_downs(services)}
    assert found == {("site", published), ("hub", "digits:1")}
    assert all(each["take_down"] and each["expired"] for each in take_downs(services))


def test_a_take_down_that_failed_is_not_asked_for_at_once_again(genmill, services, published):
    expire(services)
    assert take_down_expired(services) == 1
    [job] = [each["id"] for each in genmill("job", "list", "--kind", "publish", "--json").json]
    genmill("job", "cancel", job)
    assert take_down_expired(services) == 0


def test_a_withdrawal_names_what_was_published_and_takes_it_down(
    genmill, services, faces, tmp_path
):
    made, other = (make_samples(services, f"people:{n}", 2, tmp_path) for n in (2, 1))
    with services.database.write() as session:
        site = add_target(session)
        publish(session, site, job_id=made)
        publish(session, site, job_id=other)
        tuned = models.resolve(session, "people:3")[1]
        tuned.files = {"config.json": {"key": "k", "sha256": "ab" * 32, "size": 1}}
        publish(session, site, version_id=tuned.id)
    words = ("dataset", "withdraw", "faces", "more/9.png")
    told = genmill(*words, "--dry-run", "--take-down", "--json").json
    rows = [{"reference": each, "target": "site", "items": 2} for each in (made, "people:3")]
    assert sorted(told["published"], key=str) == sorted(rows, key=str)
    assert (told["taken_down_by"], take_downs(services)) == ([], [])
    named = genmill(*words, "--dry-run")
    assert f"genmill publish {made} --target site --take-down" in named.err
    done = genmill(*words, "--take-down", "--json").json
    assert len(done["taken_down_by"]) == 2
    found = {each["job"] or each["model"] for each in take_downs(services)}
    assert found == {made, "people:3"}


def test_a_withdrawal_takes_down_what_is_about_to_be_published(genmill, services, faces, tmp_path):
    made, other = (make_samples(services, f"people:{n}", 2, tmp_path) for n in (2, 1))
    with services.database.write() as session:
        add_target(session)
    for each in (made, other):
        assert genmill("publish", each, "--target", "site").code == 0
    words = ("dataset", "withdraw", "faces", "more/9.png", "--take-down", "--json")
    done = genmill(*words).json
    assert done["published"] == [{"reference": made, "target": "site", "items": 0}]
    [job_id] = done["taken_down_by"]
    assert genmill("job", "show", job_id, "--json").json["spec"]["job"] == made


def test_a_gallery_shows_a_job_s_samples_until_they_expire(
    genmill, services, picture_job, work, tmp_path
):
    place = folder(tmp_path / "site")
    genmill("target", "add", "site", "gallery", str(place.root), "--set", "title=Cats")
    done = genmill("publish", picture_job, "--target", "site", "--expires", "1d").out.strip()
    work()
    assert counted(genmill, done) == {"published": 5}
    files = read_site(place)
    check_links(files)
    assert len(listed(pages_of(files))) == 5
    [row, *_] = genmill("publications", "list", "--json").json
    assert row["marks_verified"]
    assert timedelta(hours=23) < between(row["published_at"], row["expires_at"]) <= FUTURE
    assert genmill("job", "remove", picture_job, "--yes").code == 2
    expire(services)
    assert take_down_expired(services) == 1
    work()
    assert listed(pages_of(read_site(place))) == set()
    assert [name for name in read_site(place) if name.startswith(("items", "files"))] == []
    assert genmill("job", "remove", picture_job, "--yes").code == 0


def between(start: str, end: str) -> timedelta:
    return datetime.fromisoformat(end) - datetime.fromisoformat(start)


def test_only_what_has_expired_is_taken_down(genmill, services, picture_job, work, tmp_path):
    place = folder(tmp_path / "site")
    genmill("target", "add", "site", "gallery", str(place.root), "--expires", "90d")
    genmill("publish", picture_job, "--target", "site")
    work()
    with services.database.write() as session:
        first = session.scalars(select(Publication).where(Publication.sample == 0)).one()
        first.expires_at = first.published_at + PAST
    assert take_down_expired(services) == 1
    work()
    assert len(listed(pages_of(read_site(place)))) == 4


def test_an_expiry_counts_for_what_is_published_already(
    genmill, services, picture_job, work, tmp_path
):
    (tmp_path / "shelf").mkdir()
    genmill("target", "add", "shelf", "folder", str(tmp_path / "shelf"))

    def spans(*more) -> set[int]:
        genmill("publish", picture_job, "--target", "shelf", *more)
        work()
        rows = genmill("publications", "list", "--json").json
        ends = [
            row["expires_at"] and between(row["published_at"], row["expires_at"]) for row in rows
        ]
        return {each and round(each / timedelta(hours=1)) for each in ends}

    assert spans() == {None}
    assert spans("--expires", "1d") == {24}
    assert spans() == {24}  # it says nothing of it
    assert spans("--expires", "2h") == {2}


@pytest.mark.parametrize("content", ["there", "gone"])
def test_a_withdrawal_is_accepted_again_when_no_version_is_left(
    genmill, services, faces, tmp_path, content
):
    made = make_samples(services, "people:2", 2, tmp_path)
    assert genmill("dataset", "remove", "faces:1", "--yes").code == 0
    [row] = genmill("dataset", "withdraw", "faces", "more/9.png", "--json").json["digests"]
    assert genmill("dataset", "show", "faces").code == 4
    with services.database.write() as session:
        publish(session, add_target(session), job_id=made)
        if content == "gone":
            for version in session.scalars(select(DatasetVersion)):
                services.store.delete(version.manifest_key)
    if content == "gone":
        shutil.rmtree(services.settings.cache)
        assert "give the digests" in genmill("dataset", "withdraw", "faces", "more/9.png").err
    words = ("dataset", "withdraw", "faces", row, "--take-down", "--json")
    done = genmill(*words)
    assert done.code == 0, done.err
    assert done.json["versions"] == ["faces:2"]
    assert done.json["published"] == [{"reference": made, "target": "site", "items": 2}]
    assert len(done.json["taken_down_by"]) == 1
    assert len(genmill("audit", "--action", "withdrawn", "--json").json) == 1
