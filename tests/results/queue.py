"""Every family through the queue: 1,000 samples are equal in shards of 64, 7 and 1."""

from scheduler.submission.enqueue import enqueue
from tests.results.hf import tiny_base
from tests.results.machine import DATA, Machine, Result
from worker.families import families
from worker.services import open_services
from worker.services.samples import entries
from worker.settings import Settings
from worker.specs import parse_spec

COUNT = 1000
SHARDS = (64, 7, 1)
SHORT = {"max_tokens": 16, "seconds": 0.02, "micro_batch": 8}  # those that a family has
SOURCES = {"image": "mnist", "text": "tinyshakespeare.txt", "audio": "spoken-digits.zip"}


def through_the_queue(machine: Machine) -> list[Result]:
    """Train each family for a few steps; make the same samples three times."""
    for media, source in SOURCES.items():
        machine.run("dataset", "add", media, DATA / source)
    return [_of_family(machine, name) for name in families()]


def _of_family(machine: Machine, name: str) -> Result:
    family, model = families()[name], f"quick-{name}"
    data = ["--dataset", family.media, "--max-steps", "20", "--seed", "1", "--wait"]
    if family.trains:
        machine.run("enqueue", "train", name, "--name", model, *data)
    else:
        machine.run("model", "import", tiny_base(machine.folder / name), "--name", model)
        machine.run("enqueue", "finetune", model, *data)
    lists = [_digests(machine, name, size) for size in SHARDS]
    same = len(lists[0]) == COUNT and all(digests == lists[0] for digests in lists)
    distinct = len(set(lists[0]))
    return Result(
        f"{name}, {COUNT} samples through the queue",
        f"{distinct} distinct; digests at 64, 7 and 1 a shard {'equal' if same else 'DIFFER'}",
        "equal",
        same,
    )


def _digests(machine: Machine, name: str, shard_size: int) -> list[str]:
    """The digests of a job's samples, in the order of their indices."""
    fields = families()[name].sampling.model_fields
    spec = {
        "kind": "generate",
        "model": f"quick-{name}",
        "count": COUNT,
        "seed": 3,
        "params": {key: value for key, value in SHORT.items() if key in fields},
    }
    services = open_services(Settings(home=machine.folder / "home"))
    try:
        job = enqueue(services, parse_spec(spec), shard_size=shard_size)
        machine.run("job", "wait", job.id)
        return [entry.sha256 for entry in entries(services, job.id)]
    finally:
        services.close()
