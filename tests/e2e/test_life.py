"""Train, generate, verify and schedule by commands alone, on one machine and on a cluster."""

import json
from pathlib import Path

import pytest
from PIL import Image

SMALL_PICTURES = [f"--set={pair}" for pair in ("channels=4", "hidden=8", "latent=2")]
SMALL_TEXTS = [f"--set={pair}" for pair in ("layers=1", "heads=2", "width=16", "context=16")]
TEXT = "春天来了,花开了。鸟儿在树上唱歌,孩子们在草地上奔跑。\n" * 40

pytestmark = pytest.mark.xdist_group("e2e")  # one at a time: each starts a whole deployment


@pytest.fixture
def embedded(machine):
    """Everything on this machine: SQLite, a folder, the embedded broker."""
    return machine


@pytest.fixture
def cluster(machine, postgresql_database_url, broker_url, s3):
    """External services: PostgreSQL, S3 over HTTP, Redis over TCP with a password."""
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


@pytest.fixture(params=["embedded", "cluster"])
def plant(request):
    """Each of the two in turn, with two workers and a scheduler running."""
    machine = request.getfixturevalue(request.param)
    machine.do("up", "--workers", "2", "--detach")
    return machine


def write_pictures(folder: Path) -> Path:
    """Write thirty pictures of two classes, dark and bright."""
    for index in range(30):
        label, brightness = ("dark", 40) if index % 2 else ("bright", 200)
        (folder / label).mkdir(parents=True, exist_ok=True)
        Image.new("L", (16, 16), brightness + index).save(folder / label / f"{index}.png")
    return folder


def test_train_generate_verify_and_schedule(plant, tmp_path):
    assert plant.genmill("doctor").code == 0

    plant.do("dataset", "add", "shades", write_pictures(tmp_path / "shades"), "--size", "16")
    (tmp_path / "spring.txt").write_text(TEXT, "utf-8")
    plant.do("dataset", "add", "spring", tmp_path / "spring.txt")
    budget = ("--max-steps", "20")
    pictures = plant.do(
        *("enqueue", "train", "vae", "--dataset", "shades", "--name", "shades"),
        *SMALL_PICTURES,
        *budget,
    )
    texts = plant.do(
        *("enqueue", "train", "gpt", "--dataset", "spring", "--name", "spring"),
        *SMALL_TEXTS,
        *budget,
    )
    plant.do("job", "wait", pictures, texts)

    job = plant.do("enqueue", "generate", "shades", "--count", "100", "--seed", "3", "--wait")
    folder = tmp_path / "out"
    plant.do("artifact", "download", job, "-o", folder)
    plant.do("artifact", "verify", job)
    assert len(list(folder.glob("*.png"))) == 100
    labels = [json.loads(record.read_text())["label"] for record in folder.glob("*.json")]
    assert {label: labels.count(label) for label in labels} == {"bright": 50, "dark": 50}
    plant.do("artifact", "reproduce", job, "57")

    lines = plant.do(
        *("enqueue", "generate", "spring", "--count", "5", "--prompt", "春天"),
        *("--set", "max_tokens=20", "--wait"),
    )
    plant.do("artifact", "download", lines, "-o", tmp_path / "texts")
    rows = (tmp_path / "texts" / "samples.jsonl").read_text("utf-8").splitlines()
    assert [json.loads(row)["prompt"] for row in rows] == ["春天"] * 5

    plant.do(
        *("schedule", "add", "nightly", "--cron", "0 3 * * *", "--"),
        *("enqueue", "finetune", "shades", "--dataset", "shades", "--max-steps", "5"),
    )
    again = plant.do("schedule", "trigger", "nightly")
    plant.do("job", "wait", again)
    versions = json.loads(plant.do("model", "show", "shades", "--json"))["versions"]
    assert len(versions) == 2


def test_a_schedule_that_comes_due_enqueues_by_itself(embedded, tmp_path):
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
