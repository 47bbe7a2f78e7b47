"""The life of a job on the servers that people have, not only on those of the other tests."""

from collections.abc import Iterator
from pathlib import Path

import pytest
from sqlalchemy import make_url

from db import schema
from db.errors import DigestMismatch, Refused, Unreachable
from scheduler.machine.broker import ping
from scheduler.machine.doctor import examine
from scheduler.results.verify import verify
from tests.other_servers import (
    make_certificate,
    run_pgbouncer,
    run_postgresql_with_tls,
    run_rclone,
    run_redis_with_tls,
    run_s3rver,
)
from worker.broker.doorbell import ring_due
from worker.services import Services
from worker.store import open_store

from .conftest import Deployment, add_digits, add_tiny, quick_settings

LONGER = [pytest.param(each, marks=pytest.mark.slow) for each in ("pgbouncer", "s3rver")]


@pytest.fixture(params=["postgresql with tls", "redis with tls", "rclone", *LONGER])
def elsewhere(
    tmp_path: Path,
    sqlite_url: str,
    broker_url: str,
    monkeypatch: pytest.MonkeyPatch,
    request: pytest.FixtureRequest,
) -> Iterator[Deployment]:
    """A deployment with one other server in it, and a worker."""
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "S3RVER")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "S3RVER")
    monkeypatch.setenv("AWS_DEFAULT_REGION", "us-east-1")
    server = request.param
    urls = {"database": sqlite_url, "redis": broker_url, "store": (tmp_path / "store").as_uri()}
    if server == "pgbouncer":
        direct = request.getfixturevalue("postgresql_database_url")
        running, kind = run_pgbouncer(make_url(direct), servers=4), "database"
    elif server == "postgresql with tls":
        running, kind = run_postgresql_with_tls(), "database"
    elif server == "redis with tls":
        running, kind = run_redis_with_tls(), "redis"
    else:
        running, kind = {"s3rver": run_s3rver, "rclone": run_rclone}[server](), "store"
    with running as url:
        urls[kind] = f"s3://genmill/here?endpoint_url={url}" if kind == "store" else url
        schema.upgrade(urls["database"])
        made = Deployment(
            quick_settings(tmp_path, urls["database"], urls["redis"], store_url=urls["store"])
        )
        made.worker()
        try:
            yield made
        finally:
            made.stop()


def test_a_job_lives_its_whole_life(elsewhere: Deployment) -> None:
    add_digits(elsewhere)
    add_tiny(elsewhere)
    trained = elsewhere.train()
    made = elsewhere.generate(40, shard_size=16)
    elsewhere.succeed(trained.id, made.id)
    more = elsewhere.generate(3, model="small")
    elsewhere.succeed(more.id)
    for job in (trained, made, more):
        assert verify(elsewhere.services, elsewhere.job(job.id)).problems == []
    checks = examine(elsewhere.settings, ["database", "broker", "store", "workers", "clock"])
    assert [check for check in checks if not check["ok"]] == []


@pytest.mark.parametrize(
    ("options", "says"),
    [
        ("", "certificate verify failed"),
        ("?ssl_ca_certs=/nowhere.pem", "No such file"),
        ("?ssl_cert_reqs=none", None),
        ("?ssl_cert_reqs=CERT_NONE&ssl_check_hostname=false", None),
    ],
)
def test_certificates_of_redis_are_checked_alike_by_all(tmp_path, sqlite_url, options, says):
    with run_redis_with_tls() as url:
        settings = quick_settings(tmp_path, sqlite_url, url.partition("?")[0] + options)
        for act in (lambda: ping(settings), lambda: ring_due(Services(settings))):
            if says is None:
                act()
            else:
                with pytest.raises((Unreachable, Refused), match=says) as refused:
                    act()
                assert "mill" not in str(refused.value).replace("genmill", "")


@pytest.mark.parametrize("encrypted", [False, True])
def test_what_s3rver_lacks_is_found_out(monkeypatch, tmp_path, encrypted):
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "S3RVER")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "S3RVER")
    certificate = make_certificate(tmp_path) if encrypted else None
    with run_s3rver(certificate) as url:
        address = f"s3://genmill/here?region=eu-central-1&endpoint_url={url}"
        if certificate is not None:
            with pytest.raises(Unreachable, match="certificate verify failed"):
                open_store(address).check()
            address += f"&ca_bundle={certificate.certificate}"
        store = open_store(address)
        store.check()
        assert [limit.missing for limit in store.limits()] == ["no conditional put"]
        store.put_as("jobs/1/manifest.json", b"one")
        store.put_as("jobs/1/manifest.json", b"one")
        with pytest.raises(DigestMismatch):
            store.put_as("jobs/1/manifest.json", b"two")
