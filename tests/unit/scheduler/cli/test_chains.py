"""Chains on the command line: `--evaluate --promote`, batch files, and what is shown of them."""

import json

import pytest

from db import chains, datasets, evaluations, jobs, models, promotions
from db.evaluations import NewEvaluation
from scheduler.schedules.parsing import make_paths_absolute, parse_repeated
from worker.networks.image_model import read_image_model

CHAIN = "enqueue finetune digits --dataset pictures --evaluate --promote --seed 1"
POLICY = """
[primary]
metric = "label_agreement"
margin = 0.5
[[guard]]
metric = "memorisation"
at_most = 0.1
"""


@pytest.fixture
def call(genmill, digits, pictures):
    return lambda words: genmill(*words.split())


def stages(services, job_id):
    with services.database.read() as session:
        return [(job.kind, job.status, job.spec) for job in chains.whole(session, job_id)]


def test_a_training_is_followed_by_its_evaluation_and_promotion(call, services) -> None:
    enqueued = call(f"{CHAIN} --priority 2 --evaluate-count 1 --alias best")
    first, *after = stages(services, enqueued.out.strip())
    assert (enqueued.code, first[:2]) == (0, ("finetune", "queued"))
    assert [job[:2] for job in after] == [("evaluate", "waiting"), ("promote", "waiting")]
    evaluation, promotion = after[0][2], after[1][2]
    asked = {"model": "digits", "dataset": "pictures", "count": 1, "against": "digits@best"}
    assert asked.items() <= evaluation.items()
    assert (promotion["model"], promotion["alias"]) == ("digits", "best")
    assert [line.split(":")[0] for line in enqueued.err.splitlines()[-2:]] == [
        "then evaluate",
        "then promote",
    ]
    shown = call(f"job show {enqueued.out.strip()} --json").json
    assert (shown["after"], [job["kind"] for job in shown["chain"]]) == (
        None,
        ["finetune", "evaluate", "promote"],
    )
    assert shown["chain"][1]["after"] == shown["id"]
    assert len(call("job list --status waiting --json").json) == 2


def test_an_evaluation_that_its_data_are_too_few_for_is_refused_before_the_training(call) -> None:
    refused = call(f"{CHAIN} --evaluate-count 2")
    assert refused.code == 2
    assert "pictures:1 has 1 items, but 2 samples are asked for" in refused.err
    assert call("job list --json").json == []


def test_job_show_draws_the_chain(call) -> None:
    first = call(CHAIN).out.strip()
    drawn = call(f"job show {first}").out.partition("CHAIN\n")[2].splitlines()[:3]
    assert drawn[0] == f"{first} finetune digits queued *"
    assert [line.index("01") for line in drawn] == [0, 3, 6]
    assert "└─ " in drawn[1]
    alone = call("enqueue finetune digits --dataset pictures").out.strip()
    assert "CHAIN" not in call(f"job show {alone}").out


def test_an_evaluation_alone_compares_with_nothing(call, services) -> None:
    words = "enqueue train gan --name new --dataset pictures --evaluate --evaluate-on pictures:1"
    _, evaluation = stages(services, call(words).out.strip())
    assert (evaluation[2]["dataset"], evaluation[2]["against"]) == ("pictures:1", None)


def add_pictures(services, number, **changes):
    """Another version of the pictures; return it."""
    with services.database.write() as session:
        summary = datasets.resolve(session, "pictures:1")[1].summary
        digest = str(number) * 64
        return datasets.add_version(
            session,
            name="pictures",
            kind="image",
            manifest_key=f"datasets/blobs/{digest}",
            manifest_sha256=digest,
            summary=summary | changes,
        )


@pytest.fixture
def champion(services, family_tree, pictures):
    """digits:2, trained on pictures:1, is the champion; there are newer pictures."""
    with services.database.write() as session:
        model, second = models.resolve(session, "digits:2")
        models.set_alias(session, model, "champion", second)
    add_pictures(services, 2)


RETRAINING = "enqueue finetune digits --dataset pictures --promote"


MEASURED_ON = {
    RETRAINING: "pictures:1",
    RETRAINING.replace("--promote", "--evaluate"): "pictures:1",
    RETRAINING.replace("pictures", "pictures:2"): "pictures:1",
    RETRAINING.replace("finetune digits", "train gan --name digits"): "pictures:1",
    f"{RETRAINING} --evaluate-on pictures@champion": "pictures:1",
    f"{RETRAINING} --evaluate-on pictures": "pictures",
    f"{RETRAINING} --evaluate-on pictures:2": "pictures:2",
    f"{RETRAINING} --alias best": "pictures",  # that nothing has yet
    RETRAINING.replace("finetune digits", "train gan --name new"): "pictures",
}


def test_a_retraining_is_measured_on_the_data_of_the_champion(call, services, champion) -> None:
    for words, measured_on in MEASURED_ON.items():
        shown = call(f"{words} --dry-run --json").json["chain"]
        assert {plan["spec"]["dataset"] for plan in shown} == {measured_on}, words
    _, *after = stages(services, call(RETRAINING).out.strip())
    assert {job[2]["dataset"] for job in after} == {"pictures:1"}


def test_it_is_measured_on_its_own_data_where_those_have_another_form(
    call, services, champion
) -> None:
    words = "enqueue train gan --name digits --dataset pictures --dry-run --json --evaluate"
    other = {"labels": [*"ab"]}, {"shape": {"media": "image", "size": 16, "channels": 1}}
    for number, change in enumerate(other, start=3):
        add_pictures(services, number, **change)
        assert call(words).json["chain"][0]["spec"]["dataset"] == "pictures"


def test_new_data_need_no_items_to_measure_by(call, services, champion) -> None:
    add_pictures(services, 3, counts={"train": 8, "validation": 0, "test": 0})
    assert (
        call(f"{RETRAINING} --dry-run --json").json["chain"][0]["spec"]["dataset"] == "pictures:1"
    )


def test_it_is_measured_on_its_own_data_where_the_champions_are_removed(call, champion) -> None:
    assert call("dataset remove pictures:1").code == 0
    assert call(f"{RETRAINING} --dry-run --json").json["chain"][0]["spec"]["dataset"] == "pictures"


def test_a_key_returns_the_chain_also_after_another_champion(call, services, champion) -> None:
    first = call(f"{RETRAINING} --seed 1 --idempotency-key k")
    with services.database.write() as session:
        model, version = models.resolve(session, "digits:3")
        models.set_alias(session, model, "champion", version)
    assert call(f"{RETRAINING} --seed 1 --idempotency-key k").out == first.out
    other = call(f"{RETRAINING} --seed 1 --idempotency-key k --evaluate-on pictures:2")
    assert "differs in dataset" in other.err


def test_data_of_the_champion_are_those_that_the_training_uses(call, champion) -> None:
    refused = call(f"{RETRAINING} --evaluate-on others@champion")
    assert (refused.code, "datasets have no aliases" in refused.err) == (4, True)


def test_a_policy_is_read_and_checked_at_once(call, services, tmp_path) -> None:
    file = tmp_path / "policy.toml"
    file.write_text(POLICY)
    first = call(f"{CHAIN} --policy {file}").out.strip()
    policy = stages(services, first)[2][2]["policy"]
    assert (policy["primary"]["margin"], policy["guard"][0]["at_most"]) == (0.5, 0.1)
    for wrong, told in (
        ("[primary", "is not TOML"),
        ('[primary]\nmetric = "beauty"', "an evaluation of image has no metric 'beauty'"),
        ('[primary]\nmetric = "fid"', "fid, which takes 2,000 items and would get 1"),
        ('[primary]\nmetric = "fid"\nmagin = 1', "magin"),
    ):
        file.write_text(wrong)
        refused = call(f"{CHAIN} --policy {file}")
        assert (refused.code, told in refused.err) == (2, True), refused.err
    assert call(f"{CHAIN} --policy none.toml").code == 2


@pytest.fixture
def image_model(tmp_path):
    from tests.families.image_models import save_image_model

    return save_image_model(tmp_path / "tiny-vit")


def test_the_folder_of_an_image_model_is_named_with_its_digest(
    call, services, image_model, caplog
) -> None:
    digest = read_image_model(image_model).sha256
    named = {"folder": str(image_model), "sha256": digest}
    stored = call(f"{CHAIN} --evaluate-judge tiny-vit")
    assert stages(services, stored.out.strip())[1][2]["judge"] == named
    assert "preprocessor_config.json is missing; assumed: pictures of 32 x 32 pix" in caplog.text
    assert "judge" not in stages(services, call(CHAIN).out.strip())[1][2]

    words = ["enqueue", "evaluate", "digits", "--dataset", "pictures", "--judge", "tiny-vit"]
    assert parse_repeated(make_paths_absolute(words)).spec.judge.model_dump() == named
    (image_model / "config.json").unlink()
    refused = call(" ".join(words))
    assert (refused.code, "tiny-vit has no config.json" in refused.err) == (2, True)


JUDGED = "enqueue evaluate digits --dataset pictures --judge tiny-vit"
JUDGING = f"{CHAIN} --evaluate-judge tiny-vit"


def test_a_folder_that_cannot_judge_is_refused_before_anything_is_stored(
    call, services, image_model, tmp_path
) -> None:
    config, weights = image_model / "config.json", image_model / "model.safetensors"
    (tmp_path / "batch.jsonl").write_text(
        '{"kind": "evaluate", "model": "digits", "dataset": "pictures", "judge": "tiny-vit"}'
    )
    commands = (
        *(JUDGED, f"{JUDGED} --dry-run", JUDGING),
        *("enqueue batch batch.jsonl", "enqueue batch batch.jsonl --dry-run"),
        *(f"{JUDGING} --dry-run", f"schedule add s --cron @daily -- {JUDGING}"),
    )
    config.write_text(json.dumps(json.loads(config.read_text()) | {"intermediate_size": 48}))
    whole = weights.read_bytes()
    for content, told in (
        (whole, "has the sizes [32], and by config.json"),
        (whole[:-9], "to its"),
    ):
        weights.write_bytes(content)
        for command in commands:
            refused = call(command)
            assert (refused.code, told in refused.err) == (2, True), refused.err
    with services.database.read() as session:
        assert sum(jobs.counts(session).values()) == 0


def test_texts_have_no_judge(genmill, prose, image_model, tmp_path) -> None:
    (tmp_path / "words.txt").write_text("Some words, and some more of them. " * 100)
    assert genmill("dataset", "add", "words", "words.txt").code == 0
    refused = genmill(
        "enqueue", "evaluate", "prose", "--dataset", "words", "--judge", str(image_model)
    )
    assert (refused.code, "no judge looks at text samples" in refused.err) == (2, True)


@pytest.mark.parametrize(
    ("words", "told"),
    [
        ("--evaluate-judge .", "--evaluate-judge belongs to --evaluate"),
        ("--policy p.toml", "--policy belongs to --promote"),
        ("--evaluate --alias best", "--alias belongs to --promote"),
        ("--evaluate-count 3", "--evaluate-count belongs to --evaluate"),
        ("--evaluate --evaluate-on nothing", "no dataset 'nothing'"),
        ("--promote --alias 3", "alias"),
    ],
)
def test_wrong_words_enqueue_nothing(call, services, words, told) -> None:
    refused = call(f"enqueue finetune digits --dataset pictures {words}")
    assert refused.code in {2, 4}
    assert told in refused.err
    with services.database.read() as session:
        assert sum(jobs.counts(session).values()) == 0


def test_a_dry_run_shows_every_stage(call, services) -> None:
    shown = call(f"{CHAIN} --dry-run --json").json
    assert shown["spec"]["kind"] == "finetune"
    assert [plan["spec"]["kind"] for plan in shown["chain"]] == ["evaluate", "promote"]
    text = call(f"{CHAIN} --dry-run").out
    assert text.count("\nTHEN\n") == 2
    with services.database.read() as session:
        assert sum(jobs.counts(session).values()) == 0


def test_an_idempotency_key_covers_the_chain(call, services) -> None:
    keyed = f"{CHAIN} --idempotency-key k"
    first = call(keyed)
    assert call(keyed).out == first.out
    for other in (
        keyed.replace("--evaluate --promote", "--evaluate"),
        f"{keyed} --alias best",
        f"{keyed} --evaluate-count 7",
    ):
        refused = call(other)
        assert (refused.code, "idempotency key 'k'" in refused.err) == (2, True)
    assert len(stages(services, first.out.strip())) == 3


def test_cancelling_the_first_cancels_the_chain(call, services) -> None:
    first = call(CHAIN).out.strip()
    assert call(f"job cancel {first}").code == 0
    assert {job[1] for job in stages(services, first)} == {"cancelled"}
    again = call(f"job retry {first}").out.strip()
    assert [job[1] for job in stages(services, again)] == ["queued", "waiting", "waiting"]


def test_waiting_for_a_chain_that_was_cancelled_fails(call, services) -> None:
    first = call(CHAIN).out.strip()
    call(f"job cancel {first}")
    last = call(f"job show {first} --json").json["chain"][-1]["id"]
    assert call(f"job wait {last}").code == 1
    watched = call(f"job watch {first} --chain")
    assert (watched.code, len(watched.out.splitlines())) == (1, 3)


def test_lines_of_a_batch_wait_for_earlier_and_later_ones(call, services, tmp_path) -> None:
    lines = [
        {"custom_id": "p", "after": "e", "kind": "promote", "model": "fresh"},
        {"custom_id": "t", "kind": "train", "family": "gan", "model": "fresh"},
        {"custom_id": "e", "after": "t", "kind": "evaluate", "model": "fresh"},
        {"after": "t", "kind": "generate", "model": "fresh", "count": 3},
        {"kind": "generate", "model": "digits", "count": 2},
    ]
    for line in lines[1:3]:
        line["dataset"] = "pictures"
    file = tmp_path / "chain.jsonl"
    file.write_text("\n".join(map(json.dumps, lines)))
    for _ in range(2):
        batch = call(f"enqueue batch {file} --idempotency-key b --json")
        assert batch.code == 0, batch.err
        made = batch.json["jobs"]
    ids = [job["id"] for job in made]
    assert ids == sorted(ids)
    assert [job["after"] for job in made] == [ids[2], None, ids[1], ids[1], None]
    assert [job["status"] for job in made] == ["waiting", "queued", "waiting", "waiting", "queued"]
    assert call(f"job list --batch {batch.json['batch']} --status waiting --json").json != []
    cancelled = call(f"job cancel {batch.json['batch']}")
    assert (cancelled.out.strip(), cancelled.err) == (batch.json["batch"], "")
    assert {job[1] for job in stages(services, ids[1])} == {"cancelled"}


def test_wrong_chains_of_a_batch_are_refused_by_their_lines(call, services, tmp_path) -> None:
    good = {"kind": "generate", "model": "digits", "count": 2}
    lines = [
        good | {"custom_id": "a", "after": "b"},
        good | {"custom_id": "b", "after": "a"},
        good | {"after": "nobody"},
        good | {"custom_id": "self", "after": "self"},
        good | {"custom_id": "c", "after": "d", "model": "unborn"},
        good | {"custom_id": "d"},
        good | {"after": "c"},
        {"custom_id": "t", "kind": "train", "family": "gan", "model": "m", "dataset": "pictures"},
        good | {"after": "t", "model": "m", "params": {"speed": 1}},
        good | {"after": "t", "model": "m"},
        good | {"after": 3},
    ]
    file = tmp_path / "chain.jsonl"
    file.write_text("\n".join(map(json.dumps, lines)))
    refused = call(f"enqueue batch {file}")
    told = dict(line.split(": ", 1) for line in refused.err.splitlines() if "line " in line[:12])
    assert refused.code == 2
    assert sorted(told, key=lambda line: int(line.split()[1])) == [
        f"line {number}" for number in (1, 2, 3, 4, 5, 7, 9, 11)
    ]
    assert told["line 1"] == "after 'b': it waits for itself, by way of line 2"
    assert told["line 4"] == "after 'self': it waits for itself"
    assert "no correct line has this custom_id" in told["line 3"]
    assert "no model 'unborn'" in told["line 5"]
    assert "line 5 is wrong" in told["line 7"]
    assert "no parameter 'speed'" in told["line 9"]
    with services.database.read() as session:
        assert sum(jobs.counts(session).values()) == 0


def test_a_chain_has_a_limited_length(call, tmp_path) -> None:
    lines = [
        {"custom_id": str(n), "kind": "generate", "model": "digits", "count": 1}
        | ({"after": str(n - 1)} if n else {})
        for n in range(chains.MAX_LENGTH + 1)
    ]
    file = tmp_path / "long.jsonl"
    for ordered in (lines, lines[::-1]):
        file.write_text("\n".join(map(json.dumps, ordered)))
        refused = call(f"enqueue batch {file}")
        assert (refused.code, "more than 100 jobs" in refused.err) == (2, True)
    file.write_text("\n".join(map(json.dumps, lines[-2::-1])))
    assert call(f"enqueue batch {file}").code == 0


def record_results(session, first, evaluation, promotion):
    """What the jobs of a chain would record: a version, its numbers, and a refusal."""
    _, old = models.resolve(session, "digits:1")
    data = datasets.resolve(session, "pictures")[1].id
    version = models.add_version(
        session,
        name="digits",
        family="gan",
        params=old.params,
        files=old.files,
        weights_sha256="b" * 64,
        metrics={},
        job_id=first,
    )
    numbers = {"fid": {"value": 7.25, "better": "lower"}, "precision": {"value": 0.5}}
    for measured, found in ((version.id, numbers), (old.id, {"fid": {"value": 9.0}})):
        protocol = ({}, "c" * 64)
        new = NewEvaluation(measured, data, evaluation, *protocol, found, "jobs/items", "d" * 64)
        evaluations.add(session, new)
    verdict = {"reasons": ["fid went from 7 to 7.25"]}
    reason = promotions.Reason("ann", verdict=verdict, job_id=promotion)
    model = models.get(session, "digits")
    promotions.refuse(session, model, "champion", version, reason)
    jobs.fail(session, promotion, reason="digits:2 does not become the champion")


def test_a_schedule_shows_what_came_of_each_run(call, genmill, services) -> None:
    schedule = ["schedule", "add", "nightly", "--cron", "0 3 * * *", "--new-data-wait", "10m"]
    added = genmill(*schedule, "--json", "--", *CHAIN.split()).json
    assert (added["only_if_new_data"], added["new_data_wait_s"]) == (True, 600)
    first = call("schedule trigger nightly").out.strip()
    with services.database.read() as session:
        ids = [job.id for job in chains.whole(session, first)]
    services.database.transact(lambda session: record_results(session, *ids))
    (run,) = call("schedule show nightly --json").json["runs"]
    assert [job["id"] for job in run["jobs"]] == ids
    assert (run["versions"], run["numbers"]["fid"]["value"]) == (["digits:2"], 7.25)
    assert run["verdict"] == {
        "outcome": "refused",
        "alias": "champion",
        "reasons": ["fid went from 7 to 7.25"],
    }
    shown = call("schedule show nightly").out.splitlines()[-1]
    for part in ("promote failed", "digits:2", "fid=7.25", "refused: fid went from 7 to 7.25"):
        assert part in shown


def test_a_run_whose_stage_failed_shows_the_reason(call, genmill, services) -> None:
    genmill("schedule", "add", "nightly", "--cron", "0 3 * * *", "--", *CHAIN.split())
    first = call("schedule trigger nightly").out.strip()
    services.database.transact(lambda session: jobs.fail(session, first, reason="loss is NaN"))
    shown = call("schedule show nightly").out.splitlines()[-1]
    assert "finetune failed, evaluate cancelled, promote cancelled" in shown
    assert "loss is NaN" in shown


def test_data_that_a_waiting_job_names_is_not_removed(call) -> None:
    first = call(CHAIN).out.strip()
    refused = call("dataset remove pictures")
    assert (refused.code, "is in use by" in refused.err) == (2, True)
    call(f"job cancel {first}")
    assert call("dataset remove pictures").code == 0
