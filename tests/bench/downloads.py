"""Download and verification over S3, against one object a sample fetched by eight threads."""

import hashlib
import os
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from threading import local

from tests.bench.bench import Bench
from tests.bench.machine import MODEL, Machine, add_model
from tests.bench.measure import Measure, compare, seconds

THREADS = 8
FETCHED = 4_000  # objects that the script is measured on; each takes equally long
BUCKETS = {"ours": "genmill", "baseline": "one-object-a-sample"}
CREDENTIALS = {
    "AWS_ACCESS_KEY_ID": "bench",
    "AWS_SECRET_ACCESS_KEY": "bench",
    "AWS_DEFAULT_REGION": "us-east-1",
}


def downloads(bench: Bench) -> Measure:
    """`artifact download` and `artifact verify`, against a script with boto3."""
    count = bench.size(20_000, 200)
    os.environ |= CREDENTIALS
    for bucket in BUCKETS.values():
        client(bench.s3).create_bucket(Bucket=bucket)
    with s3_machine(bench) as machine:
        job = machine.run("enqueue", "generate", MODEL, "--count", str(count), "--seed", "1")
        machine.wait(id=job)
        first = bench.new_folder("files")
        machine.run("artifact", "download", job, "-o", first)
        digests = upload(bench.s3, sorted(first.glob("*.png"))[:FETCHED])

        def ours() -> float:
            out = bench.new_folder("out")
            spent = seconds(lambda: machine.run("artifact", "download", job, "-o", out))
            return count / (spent + seconds(lambda: machine.run("artifact", "verify", job)))

        def baseline() -> float:
            return len(digests) / seconds(
                lambda: fetch(bench.s3, digests, bench.made_folder("plain"))
            )

        name = f"download and verify {count:,} samples over S3, against one object a sample"
        return compare(name, "samples/s", ours, baseline, pairs=bench.pairs, at_least=5)


def fetch(url: str, digests: dict[str, str], folder: Path) -> None:
    """The baseline: each sample is an object; eight threads fetch, check and write them."""
    each_thread = local()

    def one(name: str) -> None:
        if not hasattr(each_thread, "client"):
            each_thread.client = client(url)
        data = each_thread.client.get_object(Bucket=BUCKETS["baseline"], Key=name)["Body"].read()
        if hashlib.sha256(data).hexdigest() != digests[name]:
            raise ValueError(f"{name}: the digest differs")
        (folder / name).write_bytes(data)

    with ThreadPoolExecutor(THREADS) as pool:
        list(pool.map(one, digests))


def upload(url: str, paths: list[Path]) -> dict[str, str]:
    """Put each file as an object of its own; their digests by name."""
    s3, digests = client(url), {}
    for path in paths:
        data = path.read_bytes()
        digests[path.name] = hashlib.sha256(data).hexdigest()
        s3.put_object(Bucket=BUCKETS["baseline"], Key=path.name, Body=data)
    return digests


def client(url: str):
    """A client of its own: sessions are not shared between threads."""
    import boto3

    return boto3.session.Session().client("s3", endpoint_url=url)


@contextmanager
def s3_machine(bench: Bench) -> Iterator[Machine]:
    """A system with one worker whose store is a bucket."""
    places = {"store_url": f"s3://{BUCKETS['ours']}/bench", "s3_endpoint_url": bench.s3}
    machine = Machine(bench.made_folder("s3"))
    bench.stop_machine()
    machine.up(1, **places)
    try:
        add_model(machine)
        yield machine
    finally:
        machine.close()
