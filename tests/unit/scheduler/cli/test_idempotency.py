"""An idempotency key used again: the same job for the same words, a refusal for any others."""

import json
from pathlib import Path

import pytest

from db import datasets, evaluations, models

KEY = ("--idempotency-key", "k")
TRAIN = "train gan --dataset pictures --name m --set lr=0.003"
FINETUNE = "finetune digits --dataset pictures --set lr=0.003"
GENERATE = "generate prose --count 2 --set temperature=0.5"


@pytest.fixture
def ask(genmill, digits, prose, pictures):
    return lambda words: genmill("enqueue", *words.split(), *KEY)


def add_newer_versions(services):
    """Of all that the requests name, with other parameters."""
    with services.database.write() as session:
        _, old = datasets.resolve(session, "pictures")
        datasets.add_version(
            session,
            name="pictures",
            kind=old.kind,
            manifest_key=old.manifest_key,
            manifest_sha256="1" * 64,
            summary=old.summary,
        )
        for name, params in (("digits", {"beta1": 0.1}), ("prose", {"lr": 0.1})):
            model, old = models.resolve(session, name)
            models.add_version(
                session,
                name=name,
                family=model.family,
                params=params,
                files=old.files,
                weights_sha256=old.weights_sha256,
                metrics={},
            )


@pytest.mark.parametrize("words", [TRAIN, FINETUNE, GENERATE])
def test_the_same_words_give_the_same_job_though_there_are_newer_versions(
    services, genmill, ask, words
):
    first = ask(words)
    assert first.code == 0, first.err
    add_newer_versions(services)
    assert ask(words).out == first.out
    # a request without a seed is the same as one with the seed that was drawn for it
    seed = genmill("job", "show", first.out.strip(), "--json").json["spec"]["seed"]
    assert ask(f"{words} --seed {seed}").out == first.out
    other = ask(f"{words} --seed {seed + 1}")
    assert (other.code, "differs in seed" in other.err) == (2, True)


@pytest.mark.parametrize(
    ("words", "changed", "field"),
    [
        (TRAIN, ("lr=0.003", "lr=0.002"), "params.lr"),
        (TRAIN, (" --set lr=0.003", ""), "params.lr"),
        (TRAIN, ("lr=0.003", "lr=0.003 --set batch_size=7"), "params.batch_size"),
        (TRAIN, ("--dataset pictures", "--dataset others"), "dataset"),
        (TRAIN, ("--dataset pictures", "--dataset pictures:2"), "dataset"),
        (TRAIN, ("train gan", "train vae"), "family"),
        (FINETUNE, ("lr=0.003", "lr=0.002"), "params.lr"),
        (FINETUNE, ("finetune digits", "finetune digits:2"), "model"),
        (GENERATE, ("temperature=0.5", "temperature=0.6"), "params.temperature"),
        (GENERATE, ("generate prose", "generate digits"), "model"),
        (GENERATE, (GENERATE, FINETUNE), "kind"),
    ],
)
def test_other_words_under_the_key_are_refused_with_what_differs(ask, words, changed, field):
    assert ask(words).code == 0
    other = ask(words.replace(*changed))
    assert (other.code, other.err.count("\n")) == (2, 1)
    assert "'k' belongs to job" in other.err
    assert field in other.err.partition("differs in ")[2].partition(";")[0].split(", ")


def test_a_version_named_outright_agrees_with_itself_and_with_the_bare_name(ask):
    first = ask("finetune digits:1 --dataset pictures:1")
    assert first.code == 0
    assert ask("finetune digits:1 --dataset pictures:1").out == first.out
    assert ask("finetune digits --dataset pictures").out == first.out


def test_a_batch_s_key_is_for_its_own_lines(services, genmill, ask):
    line = {"kind": "generate", "model": "digits", "count": 2}
    lines = [line | {"seed": 1}, line]
    file = Path("jobs.jsonl")

    def submit(*lines):
        file.write_text("".join(json.dumps(line) + "\n" for line in lines))
        return genmill("enqueue", "batch", str(file), *KEY)

    first = submit(*lines)
    add_newer_versions(services)
    assert submit(*lines).out == first.out
    other = submit(lines[0], lines[1] | {"params": {"truncation": 0.5}})
    assert (other.code, "differs in params.truncation" in other.err) == (2, True)
    shorter = submit(lines[0])
    assert (shorter.code, "of 2 jobs, not 1" in shorter.err) == (2, True)
    assert len(genmill("job", "list", "--json").json) == 2


def test_a_batch_of_orders_is_compared_by_the_rules_that_were_asked_for(
    services, genmill, family_tree
):
    """Its judge and the training data are found when it is enqueued; no seed is the same again."""
    job_id = genmill("enqueue", "generate", "digits:2", "--count", "1").out.strip()
    with services.database.write() as session:
        version = datasets.resolve(session, "pictures")[1]
        columns = {"job_id": job_id, "key": "k", "sha256": "1" * 64, "metrics": {}}
        evaluations.add_judge(session, dataset_version_id=version.id, recipe="own-1", **columns)
    rules = {"near_duplicates": False}
    line = {"kind": "generate", "model": "digits:2", "count": 2, "accept": rules}

    def submit(**changes):
        Path("b.jsonl").write_text(json.dumps(line | changes))
        return genmill("enqueue", "batch", "b.jsonl", *KEY)

    first = submit()
    assert first.code == 0, first.err
    again = submit()
    assert again.out == first.out, again.err
    other = submit(accept=rules | {"confidence": 0.5})
    assert (other.code, "differs in accept" in other.err) == (2, True)
