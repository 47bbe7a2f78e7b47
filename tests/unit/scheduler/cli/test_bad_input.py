"""Bad input gets one clear line, the exit code of the contract, and no traceback."""

import gzip
import os
import subprocess
import sys
from pathlib import Path

import pytest
from PIL import Image
from sqlalchemy import text

from db import schema


def refused(genmill, *words, code, says):
    wrong = genmill(*words)
    assert wrong.code == code, wrong.err
    assert wrong.out == ""
    *talk, last = wrong.err.splitlines()
    assert last.startswith("Error: "), wrong.err
    assert not any("Error" in line or "Traceback" in line for line in talk), wrong.err
    for part in [says] if isinstance(says, str) else says:
        assert part in last
    return last


@pytest.mark.parametrize(
    ("words", "code", "says"),
    [
        ("train gna --dataset pictures --name m", 4, ["no family 'gna'", "'gan'", "gpt, "]),
        ("train gan --dataset pitcures --name m", 4, ["no dataset 'pitcures'", "'pictures'"]),
        ("train gan --dataset pictures:9 --name m", 4, ["'9'", "known: 1"]),
        ("train gan --dataset pictures --name a/b", 2, ["model", "'a/b'"]),
        ("train gan --dataset pictures --name m --set lrr=1", 2, ["'lrr'", "'lr'", "batch_size"]),
        (
            "train gan --dataset pictures --name m --set lr=-1",
            2,
            ["lr: expected more than 0 (got"],
        ),
        ("train gan --dataset pictures --name m --set lr", 2, ["key=value", "'lr'"]),
        ("train gan --dataset pictures --name m --set lr=NaN", 2, ["NaN is not a number"]),
        ("train gan --dataset pictures --name m --set lr=1 --set lr=2", 2, ["twice"]),
        ("train gan --dataset pictures --name m --max-steps 0", 2, ["max_steps", "(got 0)"]),
        ("train gan --dataset pictures --name m --max-seconds nan", 2, ["max_seconds"]),
        ("train gpt --dataset pictures --name m", 2, ["text", "image"]),
        ("train gan --name m", 2, ["--dataset"]),
        ("finetune digtis --dataset pictures", 4, ["no model 'digtis'", "'digits'"]),
        ("generate digtis --count 1", 4, ["no model 'digtis'", "'digits'"]),
        ("generate digits:7 --count 1", 4, ["'7'", "known: 1"]),
        ("generate digits@champoin --count 1", 4, ["'champoin'"]),
        ("generate digits --count 0", 2, ["count: expected at least 1 (got 0)"]),
        ("generate digits --count -5", 2, ["count", "(got -5)"]),
        ("generate digits --count 1000000000000", 2, ["count", "100000000"]),
        ("generate digits --count many", 2, ["--count", "'many'"]),
        ("generate digits", 2, ["--count"]),
        ("generate digits --count 1 --label cta", 2, ["no label 'cta'", "'cat'", "cat, dog"]),
        ("generate digits --count 1 --prompt hello", 2, ["takes no prompts"]),
        ("generate digits --count 1 --set temperature=1", 2, ["'temperature'", "truncation"]),
        ("generate digits --count 1 --seed -1", 2, ["seed", "(got -1)"]),
        ("generate prose --count 1 --label cat", 2, ["without labels"]),
        ("generate prose --count 1 --prompts nowhere.jsonl", 2, ["nowhere.jsonl", "No such file"]),
        ("batch nowhere.jsonl", 2, ["nowhere.jsonl", "No such file"]),
    ],
)
def test_enqueue_refuses_in_one_line(genmill, digits, prose, pictures, words, code, says):
    refused(genmill, "enqueue", *words.split(), code=code, says=says)
    assert genmill("job", "list", "--json").json == []


def test_a_batch_line_without_a_kind_is_told_which_there_are(genmill):
    Path("jobs.jsonl").write_text('{"model": "digits", "count": 1}\n')
    wrong = genmill("enqueue", "batch", "jobs.jsonl")
    assert wrong.code == 2
    assert (
        "spec: a kind is needed: train, finetune, generate, evaluate, promote or publish"
        in wrong.err
    )


def test_an_idempotency_key_used_for_another_request_is_refused(genmill, digits):
    words = ("enqueue", "generate", digits, "--idempotency-key", "k", "--count", "1")
    first = genmill(*words)
    assert genmill(*words).out == first.out
    refused(genmill, *words, "--seed", "5", code=2, says=["'k'", first.out.strip()])


@pytest.mark.parametrize("verb", ["show", "watch", "wait", "logs", "cancel", "retry"])
def test_an_unknown_job_is_code_4(genmill, verb):
    refused(genmill, "job", verb, "0199c0de", code=4, says="no job '0199c0de'")


@pytest.mark.parametrize(
    "words",
    ["model show digtis", "dataset show pitcures", "schedule show nihgtly", "family show gna"],
)
def test_an_unknown_name_is_code_4(genmill, digits, pictures, words):
    refused(genmill, *words.split(), code=4, says=f"{words.split()[2]!r}")


def test_an_empty_folder_is_no_dataset(genmill, tmp_path):
    (tmp_path / "empty").mkdir()
    refused(genmill, "dataset", "add", "d", "empty", code=2, says="empty: the folder is empty")


def test_the_working_folder_is_named_in_full(genmill, tmp_path, monkeypatch):
    (tmp_path / "here").mkdir()
    monkeypatch.chdir(tmp_path / "here")
    refused(genmill, "dataset", "add", "d", ".", code=2, says="here: the folder is empty")


def test_a_path_that_is_not_there_is_no_dataset(genmill):
    refused(genmill, "dataset", "add", "d", "gone", code=2, says=["gone", "No such file"])


@pytest.mark.parametrize(
    "words",
    [
        ["dataset", "add", "d", ""],
        ["artifact", "download", "0199c0de", "-o", ""],
        ["model", "export", "digits", ""],
        ["model", "import", "", "--name", "m"],
    ],
)
def test_an_empty_path_is_no_working_folder(genmill, words):
    refused(genmill, *words, code=2, says="the path is empty; use . for the working folder")


def test_an_empty_path_of_a_file_is_not_told_to_be_a_folder(genmill, digits):
    says = "'--marks': the path is empty; see `genmill enqueue generate --help`"
    refused(
        genmill, "enqueue", "generate", digits, "--count", "1", "--marks", "", code=2, says=says
    )


@pytest.mark.parametrize(
    "words",
    [
        "key create signing --certificate /dev/zero --private-key /dev/zero",
        "key rewrap --old-key-file /dev/zero",
        "provenance verify /dev/zero",
        "provenance verify --trust /dev/zero x.png",
        "provenance audit --head /dev/zero",
        "policy show /dev/zero",
        "model marks digits /dev/zero",
        "artifact show /dev/zero",
    ],
)
def test_a_device_that_never_ends_is_no_file(genmill, digits, words):
    Path("x.png").touch()
    refused(genmill, *words.split(), code=2, says="/dev/zero is not a file; give a file")


def test_a_text_that_is_not_utf_8_is_refused_with_the_place(genmill):
    Path("latin.txt").write_bytes("caf\xe9 ".encode("latin-1") * 9)
    refused(genmill, "dataset", "add", "d", "latin.txt", code=2, says=["UTF-8", "3"])


def test_a_file_that_is_not_idx_is_refused(genmill):
    Path("train-images-idx3-ubyte.gz").write_bytes(gzip.compress(b"no idx at all" * 9))
    refused(genmill, "dataset", "add", "d", "train-images-idx3-ubyte.gz", code=2, says="IDX")


def test_a_zip_cut_short_is_called_so(genmill):
    Path("cut.zip").write_bytes(b"PK\3\4" + b"half" * 99)
    refused(genmill, "dataset", "add", "d", "cut.zip", code=2, says=["cut.zip", "not a zip"])


@pytest.mark.parametrize(("option", "value"), [("--size", "8"), ("--mode", "L")])
def test_a_size_or_a_mode_for_a_text_is_refused(genmill, option, value):
    Path("a.txt").write_text("some text " * 50)
    words = ("dataset", "add", "d", "a.txt", option, value)
    refused(genmill, *words, code=2, says=[value, "text data, which has no "])


@pytest.mark.parametrize("words", ["job list --since", "artifact url 0199c0de --expires"])
@pytest.mark.parametrize("span", ["999999999w", "36501d"])
def test_a_span_of_more_than_a_century_is_refused(genmill, words, span):
    refused(genmill, *words.split(), span, code=2, says=[span, "hundred years"])


def test_a_bad_dataset_name_is_refused(genmill):
    Path("a.txt").write_text("some text " * 50)
    refused(genmill, "dataset", "add", "../d", "a.txt", code=2, says="'../d'")


def test_a_corrupt_image_among_good_ones_is_told_and_left_out(genmill, tmp_path):
    (tmp_path / "pics").mkdir()
    for shade in range(6):
        Image.linear_gradient("L").resize((8 + shade, 8)).save(tmp_path / "pics" / f"{shade}.png")
    (tmp_path / "pics" / "bad.png").write_bytes(b"\x89PNG\r\n\x1a\nnothing")
    added = genmill("dataset", "add", "pics", "pics", "--json")
    assert added.code == 0
    assert added.json["rejected"] == 1
    assert [reject["name"] for reject in added.json["rejects"]] == ["bad.png"]
    assert "rejected bad.png" in added.err


def test_a_database_of_a_newer_version_is_refused(genmill, services):
    with services.database.write() as session:
        session.execute(text("UPDATE alembic_version SET version_num = '9999'"))
    for words in (["job", "list"], ["db", "check"], ["db", "upgrade"]):
        refused(genmill, *words, code=1, says=["newer", "upgrade Genmill"])


@pytest.fixture
def on_sqlite(home, monkeypatch):
    monkeypatch.delenv("GENMILL_DATABASE_URL", raising=False)


def test_a_database_without_tables_is_made_on_sqlite(genmill, on_sqlite, home):
    (home / "genmill.db").unlink()
    assert genmill("job", "list").code == 0
    found = genmill("db", "check", "--json").json
    assert (found["revision"], found["ok"], found["models"]["checked"]) == (schema.HEAD, True, 0)


def test_a_file_that_is_no_database_is_told(genmill, on_sqlite, home):
    (home / "genmill.db").write_bytes(b"hello" * 400)
    refused(genmill, "job", "list", code=3, says="genmill.db")


def test_a_wrong_password_is_told_without_the_password(genmill, postgresql_url, monkeypatch):
    url = postgresql_url.replace("://genmill:", "://genmill:wrong-")
    monkeypatch.setenv("GENMILL_DATABASE_URL", url)
    line = refused(genmill, "job", "list", code=3, says=["password", "127.0.0.1"])
    assert "wrong-" not in line


def test_a_database_server_that_is_away_is_code_3(genmill, monkeypatch):
    monkeypatch.setenv("GENMILL_DATABASE_URL", "postgresql://u:secret@127.0.0.1:1/x")
    line = refused(genmill, "job", "list", code=3, says="127.0.0.1:1")
    assert "secret" not in line


def test_a_url_that_is_no_database_is_code_2(genmill, monkeypatch):
    monkeypatch.setenv("GENMILL_DATABASE_URL", "mysql://u:secret@h/x")
    line = refused(genmill, "job", "list", code=2, says="postgresql://")
    assert "secret" not in line


def test_a_bucket_that_does_not_exist_is_code_3(genmill, s3, monkeypatch):
    monkeypatch.setenv("GENMILL_STORE_URL", "s3://not-there/genmill")
    monkeypatch.setenv("GENMILL_S3_ENDPOINT_URL", s3.endpoint_url)
    Path("a.txt").write_text("some text " * 50)
    refused(genmill, "dataset", "add", "d", "a.txt", code=3, says="not-there")


def test_a_home_that_cannot_be_made_is_told(genmill, on_sqlite, tmp_path, monkeypatch):
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("GENMILL_HOME", str(tmp_path / "file" / "home"))
    wrong = genmill("job", "list")
    assert wrong.code in (1, 3)
    assert wrong.err.count("\n") == 1
    assert str(tmp_path / "file") in wrong.err


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="no device that is always full here")
def test_a_full_disk_is_one_line(home):
    command = [sys.executable, "-m", "scheduler", "family", "list"]
    with Path("/dev/full").open("w") as full:
        done = subprocess.run(
            command, stdout=full, stderr=subprocess.PIPE, text=True, check=False, env=os.environ
        )
    assert done.returncode == 1
    assert done.stderr.splitlines() == [
        "Error: No space left on device; free some space and run the command again"
    ]


def test_control_characters_of_what_was_typed_never_reach_the_terminal(genmill):
    wrong = genmill("model", "show", "a\x1b[31mred\x9b\u202e")
    assert wrong.code == 4
    assert wrong.err.isprintable() or wrong.err.rstrip("\n").isprintable()


@pytest.mark.parametrize("process", ["worker", "scheduler"])
def test_a_process_refuses_a_database_that_it_does_not_know(services, process):
    with services.database.write() as session:
        session.execute(text("UPDATE alembic_version SET version_num = '9999'"))
    command = [sys.executable, "-m", "scheduler", process]
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=60)
    assert done.returncode == 1
    assert done.stderr.splitlines()[-1].endswith(
        f"this version of Genmill knows none newer than {schema.HEAD}; upgrade Genmill"
    )


def test_bytes_that_are_no_text_are_refused_by_name(genmill, digits):
    strange = os.fsdecode(b"caf\xe9")
    enqueue = ("enqueue", "generate", digits, "--count", "1")
    refused(genmill, *enqueue, "--idempotency-key", strange, code=2, says="idempotency key")
    refused(genmill, *enqueue, "--label", strange, code=2, says="label")


def test_a_file_that_is_not_taken_is_told_what_it_is_or_what_is_taken(genmill):
    Path("table.csv").write_text("a,b\n1,2\n")
    says = ["table.csv: a table", "write its rows to a .jsonl file"]
    refused(genmill, "dataset", "add", "d", "table.csv", code=2, says=says)
    Path("what.xyz").write_text("?")
    says = ["what.xyz", ".xyz files are not supported", "use IDX", ".jsonl"]
    refused(genmill, "dataset", "add", "d", "what.xyz", code=2, says=says)
