from datetime import timedelta

import pytest

from db.session import clock
from db.tables import Job
from scheduler.dispatch.garbage import collect_jobs


@pytest.fixture
def old_job(services, picture_job):
    """A job whose pictures were made two days ago, and collected since."""

    def change(session):
        job = session.get(Job, picture_job)
        job.finished_at = clock(session) - timedelta(days=2)
        job.collected_at = clock(session)

    services.database.transact(change)
    return picture_job


def objects(services, job_id):
    return list(services.store.keys(f"jobs/{job_id}"))


def test_prune_shows_what_it_would_delete_and_deletes_nothing(genmill, old_job, monkeypatch):
    monkeypatch.setenv("GENMILL_KEEP_HISTORY_DAYS", "1")
    done = genmill("db", "prune", "--dry-run", "--json")
    rows = {(row["data"], row["table"]): row["rows"] for row in done.json["deleted"]}
    assert done.json["dry_run"]
    assert rows["history", "transitions"] == 1  # to finalizing; the rest is on the job's row
    assert rows["history", "attempts"] == 0  # each shard succeeded at once
    assert rows["logs", "log_lines"] == 0
    assert not any(data == "artifacts" for data, _ in rows)  # kept for ever by default
    assert genmill("db", "prune", "--dry-run", "--json").json == done.json


def test_prune_deletes_and_a_second_time_finds_nothing(genmill, old_job, monkeypatch):
    monkeypatch.setenv("GENMILL_KEEP_HISTORY_DAYS", "1")
    shown = genmill("job", "show", old_job, "--json").json["transitions"]
    assert {step["new"] for step in shown} == {"queued", "running", "finalizing", "succeeded"}
    first = genmill("db", "prune")
    assert first.out.splitlines()[0].split() == ["DATA", "OLDER_THAN_DAYS", "TABLE", "ROWS"]
    assert "transitions" in first.out
    assert genmill("db", "prune", "--json").json["deleted"] == []
    left = genmill("job", "show", old_job, "--json").json["transitions"]
    assert {step["new"] for step in left} == {"queued", "running", "succeeded"}


def test_removed_artifacts_are_reported_as_removed_by_every_command(
    genmill, services, old_job, monkeypatch
):
    artifact_id = genmill("artifact", "list", old_job, "--json").json[0]["id"]
    assert genmill("job", "show", old_job, "--json").json["artifacts_removed_at"] is None
    monkeypatch.setenv("GENMILL_KEEP_ARTIFACTS_DAYS", "1")
    assert genmill("db", "prune").code == 0
    assert genmill("job", "show", old_job, "--json").json["artifacts_removed_at"] is not None
    for words in (
        ["download", old_job, "-o", "out"],
        ["verify", old_job],
        ["reproduce", old_job, "3"],
        ["url", artifact_id],
    ):
        done = genmill("artifact", *words)
        assert done.code == 1, words
        assert "removed on 20" in done.err
        assert "GENMILL_KEEP_ARTIFACTS_DAYS" in done.err
    assert genmill("artifact", "list", old_job, "--json").json == []
    # rows first, then objects: the manifest stays
    assert collect_jobs(services) > 0
    assert [key.rpartition("/")[2] for key in objects(services, old_job)] == ["manifest.json"]


def test_a_wrong_number_of_days_is_refused(genmill, monkeypatch):
    monkeypatch.setenv("GENMILL_KEEP_LOGS_DAYS", "-1")
    done = genmill("db", "prune")
    assert done.code == 2
    assert "keep_logs_days" in done.err
