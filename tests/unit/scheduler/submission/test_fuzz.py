"""Words, specs and batch files of any kind: submitted, or refused in words."""

import json
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests import fuzzing
from tests.fuzzing import within_limits
from tests.unit.scheduler.cli.conftest import *  # noqa: F403 - the home, and the command line in it

TESTS = 6  # that share the examples
fuzz = fuzzing.fuzz(TESTS, few=240)
TEXT = st.text(st.characters(codec="utf-8", exclude_characters="\0"), max_size=12)
ODD = st.sampled_from(
    [
        *(
            "",
            " ",
            "-",
            "--",
            "-1",
            "a/b",
            "../x",
            "/",
            ".",
            "..",
            "a:1",
            "a@b",
            ":",
            "@",
            "%s",
            "{}",
        ),
        *(
            "\x1b[2J",
            "\u202e",
            "e\u0301",
            "x" * 5000,
            "1e999",
            "nan",
            "0x10",
            "1_000",
            "\uff11\uff12",
            "NULL",
        ),
        *("digits", "digits:1", "digits:99999999999999999999", "digits@champion", "pictures"),
    ]
)
NAMES = ODD | TEXT
FIELDS = ODD | st.sampled_from(["*", "*/5", "0", "59", "60", "1-5", "5-1", "*/0", "L", "MON", "?"])
CRONS = st.lists(FIELDS, min_size=1, max_size=6).map(" ".join) | NAMES
ZONES = NAMES | st.sampled_from(
    ["UTC", "Europe/Berlin", "../../etc/passwd", "posix/UTC", "localtime"]
)
KEYS = st.sampled_from(
    [
        *("kind", "model", "count", "seed", "label", "prompts", "params", "dataset", "family"),
        *(
            "max_steps",
            "max_seconds",
            "split",
            "against",
            "accept",
            "custom_id",
            "priority",
            "method",
        ),
        *("url", "body", "messages", "role", "content", "prompt", "alias", "policy", "why", "id"),
    ]
)
LEAVES = st.one_of(
    st.none(), st.booleans(), st.integers(-(2**70), 2**70), st.floats(allow_subnormal=False), NAMES,
    st.sampled_from(["generate", "train", "evaluate", "promote", "finetune", "gan", "digits:1"]),
)  # fmt: skip
JSON = st.recursive(
    LEAVES,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(KEYS, inner, max_size=5),
    max_leaves=15,
)
GOOD = {"kind": "generate", "model": "digits", "count": 2, "params": {"truncation": 0.5}}


def answered(genmill, *words):
    """Run a command; its result, which is no traceback, in time."""
    with within_limits():
        ran = genmill(*words)
    assert ran.code in {0, 1, 2, 3, 4}, ran.err
    assert "unforeseen" not in ran.err
    return ran


@fuzz
@given(name=NAMES, other=NAMES, number=NAMES)
def test_names_of_any_kind_get_an_answer(genmill, digits, pictures, name, other, number):
    before = {*Path.cwd().parent.iterdir(), *Path.cwd().iterdir()}
    for words in (
        ("enqueue", "generate", name, f"--count={number}", f"--label={other}", f"--set={other}"),
        (
            "enqueue",
            "train",
            "gan",
            f"--dataset={other}",
            f"--name={name}",
            f"--max-steps={number}",
        ),
        ("enqueue", "generate", "digits", "--count=1", f"--idempotency-key={name}", "--json"),
        ("job", "show", "--", name),
        ("model", "show", "--", name),
        ("model", "alias", "--", name, other),
        ("artifact", "show", "--", name),
        ("job", "list", f"--since={other}", f"--model={name}", f"--limit={number}"),
    ):
        answered(genmill, *words)
    assert {*Path.cwd().parent.iterdir(), *Path.cwd().iterdir()} <= before


@fuzz
@given(name=NAMES, cron=CRONS, zone=ZONES)
def test_schedules_of_any_kind_get_an_answer(genmill, digits, name, cron, zone):
    ask = ("--", "enqueue", "generate", "digits", "--count", "1")
    answered(genmill, "schedule", "add", f"--cron={cron}", f"--timezone={zone}", name, *ask)
    answered(genmill, "schedule", "list")


@pytest.mark.parametrize("around", ["alone", "changed", "openai"])
@fuzz
@given(rows=st.lists(JSON, min_size=1, max_size=4), data=st.data())
def test_batch_lines_of_any_json_get_an_answer(genmill, digits, around, rows, data):
    if around == "changed":
        rows = [GOOD | ({"params": row} if data.draw(st.booleans()) else odd(row)) for row in rows]
    elif around == "openai":
        url = {"custom_id": "a", "method": "POST", "url": "/v1/chat/completions"}
        rows = [url | {"body": row} for row in rows]
    Path("jobs.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows), "utf-8")
    checked(genmill, len(rows))


def odd(row):
    return row if isinstance(row, dict) else {"count": row}


@fuzz
@given(data=st.data())
def test_a_mutated_batch_file_gets_an_answer(genmill, digits, data):
    lines = "".join(json.dumps(GOOD | {"seed": n, "custom_id": str(n)}) + "\n" for n in range(3))
    Path("jobs.jsonl").write_bytes(data.draw(fuzzing.mutated(lines.encode())))
    checked(genmill, 3)


def checked(genmill, most):
    """A batch is taken whole or not at all."""
    before = len(genmill("job", "list", "--json", "--limit", "1000").json)
    ran = answered(genmill, "enqueue", "batch", "jobs.jsonl")
    after = len(genmill("job", "list", "--json", "--limit", "1000").json)
    assert after <= 1000
    if ran.code and before < 1000 - most:
        assert after == before
