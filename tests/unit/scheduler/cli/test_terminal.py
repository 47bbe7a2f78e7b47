"""What lists and shows print on terminals of 40, 80 and 120 columns, and for other programs."""

import re

import click
import pytest
from rich.cells import cell_len

from scheduler.cli import cli
from tests.commands import find, leaves
from tests.publications import add_target, publish

WIDTHS = [40, *(pytest.param(columns, marks=pytest.mark.slow) for columns in (80, 120))]
ADD = ("schedule", "add", "nightly", "--cron", "0 3 * * *", "--")
AGAIN = ("enqueue", "finetune", "digits", "--dataset", "pictures", "--max-steps", "5")
TRAIN = ("enqueue", "finetune", "digits@champion", "--dataset", "pictures", "--max-steps", "5")


@pytest.fixture
def terminal(monkeypatch):
    """Makes standard output a terminal of some columns, and long enough for everything."""
    monkeypatch.setenv("LINES", "10000")
    monkeypatch.setenv("TERM", "xterm-256color")
    monkeypatch.delenv("NO_COLOR", raising=False)

    def become(columns):
        monkeypatch.setattr("sys.stdout.isatty", lambda: True)
        monkeypatch.setenv("COLUMNS", str(columns))

    return become


@pytest.mark.parametrize("columns", WIDTHS)
def test_no_line_is_wider_than_the_terminal_and_no_id_is_broken(
    genmill, services, family_tree, picture_job, terminal, monkeypatch, columns
):
    monkeypatch.setenv("GENMILL_DATABSE_URL", "typed wrong")
    for tenant in ("one", "another-tenant-of-a-long-name"):
        assert genmill("key", "create", "watermark", "--tenant", tenant).code == 0
    genmill("key", "create", "signing", "--name", "An organisation with a name")
    with services.database.write() as session:
        for name in ("site", "a-target-with-a-name-that-is-long"):
            publish(session, add_target(session, name, f"/srv/{name}" * 3), job_id=picture_job)
    lost = genmill("enqueue", "generate", "digits", "--count", "1").out.strip()
    genmill("job", "cancel", lost)
    assert genmill("job", "remove", lost, "--yes").code == 0
    genmill("model", "alias", "digits:2", "--as", "champion", "--why", "a reason " * 9)
    added = genmill(*ADD, *TRAIN)
    assert added.code == 0, added.err
    genmill("schedule", "trigger", "nightly")
    genmill("job", "cancel", genmill("job", "list", "-q", "--status", "queued").out.strip())
    (artifact, *_) = genmill("artifact", "list", picture_job, "-q").out.split()
    stem = re.escape(picture_job[:6])
    terminal(columns)
    for words in commands(picture_job, artifact):
        done = genmill(*words)
        failing = {("doctor",), ("config", "check"), ("db", "check")}
        assert done.code == (1 if words[:2] in failing else 0), (words, done.err)
        lines = click.unstyle(done.out).splitlines()
        assert lines, words
        assert max(map(cell_len, lines)) <= columns, (columns, words, max(lines, key=cell_len))
        found = re.findall(rf"\b{stem}[0-9a-f-]*", "\n".join(lines))
        assert {len(each) for each in found} <= {18, 36}, (columns, words, found)
        keys = re.findall(r"key_[0-9a-f]*", "\n".join(lines))
        assert {len(each) for each in keys} <= {20}, (columns, words, keys)


def commands(job: str, artifact: str) -> list[tuple[str, ...]]:
    return [
        *[("job", "list"), ("job", "list", "--full"), ("job", "show", job)],
        *[("artifact", "list", job), ("artifact", "show", artifact)],
        *[("dataset", "list"), ("dataset", "show", "pictures", "--used-by")],
        *[("model", "list"), ("model", "show", "digits:2", "--lineage"), ("model", "alias")],
        *[("model", "history", "digits"), ("schedule", "list"), ("schedule", "show", "nightly")],
        *[("family", "list"), ("family", "show", "hf"), ("template", "list")],
        *[("template", "show", "summary"), ("policy", "show"), ("config", "list")],
        *[("config", "check"), ("status",), ("doctor",), ("db", "prune", "--dry-run")],
        *[("db", "removed"), ("db", "check"), ("audit",), ("key", "list"), ("target", "list")],
        *[("target", "kinds"), ("target", "show", "site"), ("publications", "list")],
        *[("doctor", "--disk"), ("model", "remove", "copy", "--dry-run")],
    ]


def test_what_a_list_shows_of_an_id_can_be_pasted_back(genmill, picture_job, digits, terminal):
    removed = genmill("enqueue", "generate", digits, "--count", "1").out.strip()
    genmill("job", "cancel", removed)
    genmill("job", "remove", removed, "--yes")
    key = genmill("key", "create", "watermark").out.strip()
    terminal(80)
    for line, id_, use in (
        ("job list", picture_job, "job show {}"),
        ("db removed", removed, "job show {}"),
        ("audit", removed, "audit --subject {}"),
        ("key list", key, "key revoke {} --reason lost"),
    ):
        (shown,) = set(re.findall(rf"{id_[:8]}[0-9a-f_-]*", genmill(*line.split()).out))
        used = genmill(*use.format(shown).split())
        assert id_[:18] in used.out + used.err, (line, shown, used)
        assert "no " not in used.err[:10]


def test_every_list_prints_names_or_ids_alone(genmill, family_tree, picture_job):
    genmill(*ADD, *AGAIN)
    wanted = {
        "job list": [picture_job],
        f"artifact list {picture_job}": 3,
        "dataset list": ["pictures"],
        "model list": ["copy", "digits"],
        "schedule list": ["nightly"],
        "family list": 8,
        "template list": ["advert"],
        "config list": ["GENMILL_HOME"],
    }
    for line, names in wanted.items():
        done = genmill(*line.split(), "-q")
        shown = done.out.split("\n")[:-1]
        assert (done.code, done.err) == (0, ""), line
        if isinstance(names, int):
            assert len(shown) == names
        else:
            assert shown[: len(names)] == names or names[0] in shown, line
        assert genmill(*line.split(), "--quiet").out == done.out
        both = genmill(*line.split(), "-q", "--json")
        assert both.code == 2
        assert "--quiet" in both.err


def test_help_fits_80_columns_and_says_the_same_in_the_same_words():
    for command in ("", *leaves(cli)):
        context = click.Context(find(command), info_name=f"genmill {command}", terminal_width=78)
        text = context.command.get_help(context)
        assert max(map(len, text.splitlines())) <= 80, command
        assert "(default" not in text  # but "Default: ", or Click's own "[default: "
        assert "an be repeated" not in text  # but "repeatable"


def test_every_command_called_list_takes_quiet():
    for command in leaves(cli):
        found = cli
        for word in command.split():
            found = found.get_command(click.Context(found), word)
        quiet = any("-q" in param.opts for param in found.params)
        assert quiet or not command.endswith(" list"), command


def test_an_empty_list_of_names_is_silent(genmill):
    done = genmill("job", "list", "-q")
    assert (done.code, done.out, done.err) == (0, "", "")


def test_states_are_coloured_on_a_terminal_alone(genmill, picture_job, terminal, monkeypatch):
    terminal(120)
    assert click.style("succeeded", fg="green") in genmill("job", "list").out
    for name, value in (("NO_COLOR", "1"), ("TERM", "dumb")):
        with monkeypatch.context() as changed:
            changed.setenv(name, value)
            plain = genmill("job", "list").out
        assert "\x1b" not in plain
        assert "succeeded" in plain


def test_long_lists_go_to_the_pager(genmill, terminal, monkeypatch, tmp_path):
    terminal(80)
    monkeypatch.setenv("LINES", "10")
    monkeypatch.setenv("GENMILL_PAGER", f"sh -c 'cat > {tmp_path}/paged.txt'")
    assert genmill("family", "show", "gpt").out == ""
    assert "TRAINING" in (tmp_path / "paged.txt").read_text()


def test_a_schedule_s_next_due_is_told_for_people(genmill, family_tree):
    genmill(*ADD, *AGAIN)
    assert re.search(r"in \d+ (h|min|s)", genmill("schedule", "list").out)
    assert re.search(r"T03:00:00Z, in \d+ ", genmill("schedule", "show", "nightly").out)
    (row,) = genmill("schedule", "list", "--json").json
    assert re.fullmatch(r"\d{4}-\d\d-\d\dT03:00:00Z", row["next_due"])
    genmill("schedule", "pause", "nightly")
    (row,) = genmill("schedule", "list", "--json").json
    assert (row["paused"], row["next_due"]) == (True, None)
    assert " in " not in genmill("schedule", "list").out


UNKNOWN = [
    ("job list --model digist", 4, "no model 'digist' (did you mean 'digits'?)"),
    ("job list --model digits:2", 4, "did you mean 'digits'"),
    ("job list --schedule nightyl", 4, "did you mean 'nightly'"),
    ("job list --batch nosuch", 4, "no batch 'nosuch'"),
    ("job list --before nosuch", 4, "no job 'nosuch'"),
    ("job list --status nosuch", 2, "'queued'"),
    ("job list --kind nosuch", 2, "'train'"),
    ("model history digits --alias nosuch", 4, "no alias 'nosuch'"),
    ("model alias digist", 4, "did you mean 'digits'"),
    ("doctor --check nosuch", 2, "no check 'nosuch'"),
    ("help job lits", 2, "'list'"),
    ("help jbo", 2, "'job'"),
    ("help job list more", 2, "has no command 'more'"),
]


def test_what_is_not_known_is_refused(genmill, family_tree):
    genmill(*ADD, *AGAIN)
    for words, code, says in UNKNOWN:
        wrong = genmill(*words.split())
        assert (wrong.code, wrong.out, wrong.err.count("\n")) == (code, "", 1), wrong.err
        assert says in wrong.err


def test_jobs_of_a_model_that_is_not_trained_yet_are_listed(genmill, pictures):
    words = ("enqueue", "train", "vae", "--dataset", "pictures", "--name", "fresh")
    job = genmill(*words, "--max-steps", "5").out.strip()
    assert genmill("job", "list", "--model", "fresh", "-q").out == f"{job}\n"
    assert genmill("job", "list", "--model", "fresh", "--status", "failed", "-q").code == 0
    assert "did you mean 'fresh'" in genmill("job", "list", "--model", "frseh").err


def test_help_is_that_of_the_command(genmill):
    for words in ((), ("job",), ("job", "list"), ("enqueue", "train"), ("help",)):
        assert genmill("help", *words).out == genmill(*words, "--help").out
