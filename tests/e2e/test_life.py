"""A job's life by commands alone, on the embedded default and on services of a cluster."""

import json
from pathlib import Path

import pytest
from PIL import Image

SMALL_PICTURES = [f"--set={pair}" for pair in ("channels=4", "hidden=8", "latent=2")]
SMALL_TEXTS = [f"--set={pair}" for pair in ("layers=1", "heads=2", "width=16", "context=16")]
TEXT = "春天来了,花开了。鸟儿在树上唱歌,孩子们在草地上奔跑。\n" * 40

pytestmark = pytest.mark.xdist_group("e2e")  # one at a time: each is a whole deployment


@pytest.fixture
def embedded(machine):
    """Nothing configured: SQLite, a folder, the embedded broker."""
    return machine


@pytest.fixture
def cluster(machine, postgresql_database_url, broker_url, s3):
    """Services elsewhere: PostgreSQL, S3 over HTTP, Redis over TCP with a password."""
    machine.environment |= {
        "GENMILL_DATABASE_URL": postgresql_database_url,
        "GENMILL_REDIS_URL": broker_url,
        "GENMILL_STORE_URL": s3.url,
        "GENMILL_S3_ENDPOINT_URL": s3.endpoint_url,
        "AWS_ACCESS_KEY_ID": "testing",
        "AWS_SECRET_ACCESS_KEY": "testing",
        "AWS_DEFAULT_REGION": "us-east-1",
    }
    return machine


@pytest.fixture(params=["embedded", pytest.param("cluster", marks=pytest.mark.slow)])
def deployment(request):
    """Each kind in turn, with two workers and a scheduler running."""
    machine = request.getfixturevalue(request.param)
    machine.do("up", "--workers", "2", "--detach")
    return machine


def write_pictures(folder: Path) -> Path:
    """Write thirty pictures of two classes, dark and bright."""
    for index in range(30):
        label, brightness = ("dark", 40) if index % 2 else ("bright", 200)
        (folder / label).mkdir(parents=True, exist_ok=True)
        picture = Image.new("L", (16, 16), brightness + index)
        picture.putpixel((index % 16, 8), 0)  # a picture of one colour is left out
        picture.save(folder / label / f"{index}.png")
    return folder


@pytest.mark.slow
def test_train_generate_download_verify_and_schedule_by_commands(deployment, tmp_path):
    assert deployment.genmill("doctor").code == 0

    deployment.do("dataset", "add", "shades", write_pictures(tmp_path / "shades"), "--size", "16")
    (tmp_path / "spring.txt").write_text(TEXT, "utf-8")
    deployment.do("dataset", "add", "spring", tmp_path / "spring.txt")
    budget = ("--max-steps", "20")
    pictures = deployment.do(
        *("enqueue", "train", "vae", "--dataset", "shades", "--name", "shades"),
        *SMALL_PICTURES,
        *budget,
    )
    texts = deployment.do(
        *("enqueue", "train", "gpt", "--dataset", "spring", "--name", "spring"),
        *SMALL_TEXTS,
        *budget,
    )
    deployment.do("job", "wait", pictures, texts)

    job = deployment.do("enqueue", "generate", "shades", "--count", "100", "--seed", "3", "--wait")
    folder = tmp_path / "out"
    deployment.do("artifact", "download", job, "-o", folder)
    deployment.do("artifact", "verify", job)
    assert len(list(folder.glob("*.png"))) == 100
    labels = [json.loads(record.read_text())["label"] for record in folder.glob("*.json")]
    assert {label: labels.count(label) for label in labels} == {"bright": 50, "dark": 50}
    deployment.do("artifact", "reproduce", job, "57")

    lines = deployment.do(
        *("enqueue", "generate", "spring", "--count", "5", "--prompt", "春天"),
        *("--set", "max_tokens=20", "--wait"),
    )
    deployment.do("artifact", "download", lines, "-o", tmp_path / "texts")
    rows = (tmp_path / "texts" / "samples.jsonl").read_text("utf-8").splitlines()
    assert [json.loads(row)["prompt"] for row in rows] == ["春天"] * 5

    deployment.do(
        *("schedule", "add", "nightly", "--cron", "0 3 * * *", "--"),
        *("enqueue", "finetune", "shades", "--dataset", "shades", "--max-steps", "5"),
    )
    again = deployment.do("schedule", "trigger", "nightly")
    deployment.do("job", "wait", again)
    versions = json.loads(deployment.do("model", "show", "shades", "--json"))["versions"]
    assert len(versions) == 2


@pytest.mark.slow
def test_the_scheduler_enqueues_what_comes_due(embedded, tmp_path):
    embedded.do("up", "--detach")
    embedded.do("dataset", "add", "shades", write_pictures(tmp_path / "shades"), "--size", "16")
    embedded.do(
        *("schedule", "add", "often", "--cron", "* * * * * *", "--"),
        *("enqueue", "train", "vae", "--dataset", "shades", "--name", "often"),
        *("--max-steps", "2", *SMALL_PICTURES),
    )

    def fired() -> list[dict]:
        runs = json.loads(embedded.do("schedule", "show", "often", "--json"))["runs"]
        return [run for run in runs if run["outcome"] == "fired"]

    (run, *_) = embedded.until("a run", fired)
    embedded.do("schedule", "remove", "often")
    embedded.do("job", "wait", run["job"])
