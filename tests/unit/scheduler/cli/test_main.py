import os
import subprocess
import sys
from pathlib import Path

import pytest

from scheduler.cli import SECTIONS, cli
from scheduler.cli.lazy import Entry
from worker.code_version import code_version

COMMANDS = [
    "artifact list 0",
    "dataset list",
    "db check",
    "doctor",
    "enqueue generate nothing --count 1",
    "enqueue train gan --dataset nothing --name m",
    "family list",
    "family show gpt",
    "job list",
    "model list",
    "schedule list",
    "status",
]

WITHOUT_TORCH = """
import sys
from pathlib import Path
from scheduler.cli import run
for line in sys.argv[1:]:
    assert run(line.split()) in (0, 1, 2, 4), line
    assert "torch" not in sys.modules, line
"""

ONLY_CLICK = """
import sys
from pathlib import Path
from scheduler.cli import run
assert run(["--help"]) == 0
heavy = {"pydantic", "sqlalchemy", "celery", "redis", "boto3", "numpy", "PIL", "rich", "torch"}
assert not heavy & set(sys.modules), heavy & set(sys.modules)
"""

ONLY_SQLITE = """
import sys
from scheduler.cli import run
assert run(["job", "list"]) == 0
assert "sqlalchemy.dialects.postgresql" not in sys.modules
"""


def python(script, *words, **options):
    command = [sys.executable, "-c", script, *words]
    return subprocess.run(command, capture_output=True, text=True, check=False, **options)


def test_help_imports_click_and_nothing_heavier(home):
    done = python(ONLY_CLICK)
    assert done.returncode == 0, done.stderr


def test_a_command_on_a_sqlite_record_does_not_import_the_other_databases_dialect(home):
    python(ONLY_SQLITE)  # which creates the record, by migrations that import both
    done = python(ONLY_SQLITE)
    assert done.returncode == 0, done.stderr


def test_no_command_but_the_worker_imports_torch(home):
    done = python(WITHOUT_TORCH, *COMMANDS)
    assert done.returncode == 0, done.stderr


def test_every_command_has_help_with_an_example(genmill):
    for words, command in _leaves(cli, ()):
        shown = genmill(*words, "--help")
        assert shown.code == 0, words
        example = command.help.partition("\b")[2]
        assert example.strip(), f"{' '.join(words)} has no example"


def test_the_short_help_of_every_group_is_known_without_importing_it():
    for entry in _entries():
        assert entry.short_help.endswith(".")
        assert entry.load().help


def test_every_command_that_shows_something_takes_json():
    silent = {
        ("up",),
        ("down",),
        ("demo",),
        ("worker",),
        ("scheduler",),
        ("db", "upgrade"),
        ("help",),
    }
    for words, command in _leaves(cli, ()):
        takes_json = any("--json" in option.opts for option in command.params)
        assert takes_json == (words not in silent), words


@pytest.mark.parametrize(
    ("words", "near"),
    [
        ("jbo list", "'job'"),
        ("job lits", "'list'"),
        ("job list --limt 3", "'--limit'"),
        ("enqueue trian gan", "'train'"),
        ("job list --status runing", "'running'"),
    ],
)
def test_a_misspelling_is_one_line_with_the_nearest_spelling(genmill, words, near):
    wrong = genmill(*words.split())
    assert wrong.code == 2
    assert wrong.out == ""
    assert near in wrong.err
    assert wrong.err.count("\n") == 1
    assert wrong.err.startswith("Error: ")


def test_a_wrong_setting_is_named(genmill, monkeypatch):
    monkeypatch.setenv("GENMILL_LEASE_S", "soon")
    wrong = genmill("job", "list")
    assert (wrong.code, wrong.err.count("\n")) == (2, 1)
    assert "lease_s" in wrong.err
    assert "'soon'" in wrong.err


def test_an_unknown_failpoint_is_refused_before_anything_else(genmill, monkeypatch):
    monkeypatch.setenv("GENMILL_FAILPOINT", "clamed:sigkill")
    for words in ("family list", "job list", "status", "worker", "scheduler", "up --detach"):
        wrong = genmill(*words.split())
        assert (wrong.code, wrong.out, wrong.err.count("\n")) == (2, "", 1), words
        assert "no failpoint 'clamed' (did you mean 'claimed'?)" in wrong.err
    monkeypatch.setenv("GENMILL_FAILPOINT", "claimed:sigkill:2")
    assert genmill("family", "list").code == 0


def test_an_unknown_failpoint_of_a_dot_env_file_is_refused(genmill, tmp_path):
    (tmp_path / ".env").write_text("GENMILL_FAILPOINT=claimed:sigkil\n")
    wrong = genmill("job", "list")
    assert (wrong.code, "no action 'sigkil' (did you mean 'sigkill'?)" in wrong.err) == (2, True)


def test_a_dot_env_file_in_the_working_folder_is_read(genmill, tmp_path, monkeypatch):
    monkeypatch.delenv("GENMILL_HOME")
    monkeypatch.delenv("GENMILL_DATABASE_URL", raising=False)
    (tmp_path / ".env").write_text(f"GENMILL_HOME={tmp_path / 'elsewhere'}\n")
    assert genmill("job", "list").code == 0
    assert (tmp_path / "elsewhere" / "genmill.db").is_file()


def test_a_command_that_reads_a_dot_env_file_says_so_first(genmill, tmp_path, caplog):
    (tmp_path / ".env").write_text("GENMILL_LEASE_S=7\n")
    line = f"settings from {tmp_path / '.env'}: GENMILL_LEASE_S"
    for words in ("job list --json", "status", "enqueue train gan --dataset d --name m"):
        caplog.clear()
        genmill(*words.split())
        assert (caplog.messages[0], caplog.messages.count(line)) == (line, 1), words


def test_an_interrupt_is_code_130_and_no_traceback(genmill, monkeypatch):
    def interrupt(*_args, **_more):
        raise KeyboardInterrupt

    monkeypatch.setattr(Entry, "load", interrupt)
    stopped = genmill("job", "list")
    assert stopped.code == 130
    assert "Traceback" not in stopped.err


def test_a_closed_pipe_is_quiet(home):
    command = [sys.executable, "-m", "scheduler", "family", "show", "gpt", "--json"]
    reading, writing = os.pipe()
    os.close(reading)
    try:
        done = subprocess.run(
            command, stdout=writing, stderr=subprocess.PIPE, text=True, check=False
        )
    finally:
        os.close(writing)
    assert done.stderr == ""


def test_a_noun_alone_shows_its_verbs_as_talk_with_code_2(genmill):
    for words in ([], ["job"], ["enqueue"]):
        shown = genmill(*words)
        assert (shown.code, shown.out) == (2, "")
        assert shown.err.startswith("Usage: genmill")


def test_version_is_that_of_the_code(genmill):
    assert genmill("--version").out == f"genmill {code_version()}\n"


def test_completion_knows_commands_and_options(home):
    environment = {**os.environ, "_GENMILL_COMPLETE": "bash_complete"}
    command = [sys.executable, "-c", "from scheduler.cli import main; main()"]
    for words, place, expected in (
        ("genmill jo", "1", "plain,job"),
        ("genmill job wa", "2", "plain,wait\nplain,watch"),
        ("genmill job list --st", "3", "plain,--status"),
    ):
        typed = environment | {"COMP_WORDS": words, "COMP_CWORD": place}
        done = subprocess.run(command, env=typed, capture_output=True, text=True, check=False)
        assert done.stdout.strip() == expected


def _entries():
    return [entry for part in SECTIONS.values() for entry in part.values()]


def _leaves(group, words):
    context = None
    for name in group.list_commands(context):
        command = group.get_command(context, name)
        if hasattr(command, "list_commands"):
            yield from _leaves(command, (*words, name))
        else:
            yield (*words, name), command


def test_a_closed_output_is_no_traceback(home):
    command = f"exec {sys.executable} -m scheduler job list >&- 2>closed.txt"
    done = subprocess.run(["/bin/sh", "-c", command], check=False)
    assert (done.returncode, Path("closed.txt").read_text()) == (0, "nothing to show\n")


def test_a_family_s_ranges_are_written_out_in_full(genmill):
    shown = genmill("family", "show", "hf").out
    assert "whole number from 8 to 1048576" in shown
    assert "e+" not in shown


def test_what_nobody_foresaw_is_one_line_and_a_traceback_for_those_who_debug(genmill, monkeypatch):
    def fail(*_, **__):
        raise KeyError("a key")

    monkeypatch.setattr("db.readable.read_each", fail)
    told = genmill("job", "list")
    assert told.code == 1
    assert told.err.startswith("Error: unforeseen KeyError: 'a key'; ")
    assert len(told.err.splitlines()) == 1
    monkeypatch.setenv("GENMILL_LOG_LEVEL", "debug")
    assert "Traceback" in genmill("job", "list").err
