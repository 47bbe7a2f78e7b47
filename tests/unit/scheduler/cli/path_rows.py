"""The paths that commands take, from their parameters and from settings: one row each, or several.

A parameter or setting without a row fails `test_blame`.
"""

import shutil
import tarfile
import zipfile
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from PIL import Image

from tests.unit.scheduler.cli.path_faults import Make

TEXT = "once upon a time there was a fox. " * 60
PROMPT = '{"prompt": "Once"}\n'
JOB = '{"kind": "generate", "model": "prose", "count": 1}\n'
SCHEDULE = ("schedule", "add", "n", "--cron", "0 3 * * *", "--")
MARKS = 'marks = ["iptc"]\n'
POLICY = "resamples = 200\n"
TRUST = '{"format": "genmill-trust-1", "keys": []}'
PROMOTED = ("--promote", "--policy", "{path}")
JUDGED = ("--evaluate", "--evaluate-judge", "{path}")
FORMS = ("files", "jsonl", "webdataset", "parquet")


@dataclass(frozen=True)
class Row:
    """A command line whose `{path}` is the path. `{job}`, `{home}` and `{text}` are good ones."""

    words: tuple[str, ...]
    name: str  # of the file or folder
    make: Make  # what belongs there
    kind: Literal["file", "folder", "either"]
    url: str = "{path}"  # the value of a setting
    codes: tuple[int, ...] = (2,)

    def __str__(self) -> str:
        return " ".join(self.words[:2]) + f" {self.name}"


def holding(text: str) -> Make:
    return lambda path: path.write_text(text)


def texts(path: Path) -> None:
    path.mkdir()
    (path / "a.txt").write_text(TEXT)


def pictures(path: Path) -> None:
    path.mkdir()
    Image.new("L", (8, 8), 40).save(path / "a.png")


def a_picture(path: Path) -> None:
    Image.new("L", (8, 8), 40).save(path)


def zipped(path: Path) -> None:
    with zipfile.ZipFile(path, "w") as packed:
        packed.writestr("a.txt", TEXT)


def tarred(path: Path) -> None:
    with tarfile.open(path, "w:gz") as packed:
        packed.add(__file__, "a.txt")


def model(path: Path) -> None:
    path.mkdir()
    (path / "config.json").write_text("{}")


def backup(path: Path) -> None:
    path.mkdir()
    (path / "backup.json").write_text("{}")


def copied(name: str) -> Make:
    """A copy of what lies in the good home, which is the working folder's `home`."""

    def make(path: Path) -> None:
        source = Path("home", name)
        shutil.copytree(source, path) if source.is_dir() else shutil.copy(source, path)

    return make


def home(path: Path) -> None:
    path.mkdir()
    copied("genmill.db")(path)


DATASETS: dict[str, Make] = {
    "a.txt": holding(TEXT),
    "a.jsonl": holding('{"text": "some words"}\n' * 90),
    "a.zip": zipped,
    "a.tar.gz": tarred,
    "texts": texts,
    "pictures": pictures,
}
INPUTS: dict[tuple[str, str], list[Row]] = {
    ("dataset add", "path"): [
        Row(("dataset", "add", "d", "{path}"), name, make, "either")
        for name, make in DATASETS.items()
    ],
    ("enqueue generate", "prompts"): [
        Row((*before, "enqueue", "generate", "prose", option), "p.jsonl", holding(PROMPT), "file")
        for before, option in (((), "--prompts={path}"), (SCHEDULE, "--prompts={path}"))
    ],
    ("enqueue generate", "marks"): [
        Row(
            (*before, "enqueue", "generate", "prose", "--count", "1", "--marks={path}"),
            *("m.toml", holding(MARKS), "file"),
        )
        for before in ((), SCHEDULE)
    ],
    ("model marks", "profile"): [
        Row(("model", "marks", "prose", "{path}"), "m.toml", holding(MARKS), "file")
    ],
    ("enqueue batch", "file"): [
        Row((*before, "enqueue", "batch", "{path}"), "b.jsonl", holding(JOB), "file")
        for before in ((), SCHEDULE)
    ],
    ("dataset update", "path"): [
        Row(("dataset", "update", "words", "{path}"), "a.txt", holding(TEXT), "either")
    ],
    ("artifact show", "what"): [Row(("artifact", "show", "{path}"), "a.png", a_picture, "file")],
    ("provenance verify", "files"): [
        Row(("provenance", "verify", "{path}"), name, make, "either")
        for name, make in (("a.png", a_picture), ("pictures", pictures))
    ],
    ("provenance verify", "trust"): [
        Row(
            ("provenance", "verify", "home", "--trust", "{path}"),
            *("trust.json", holding(TRUST), "either"),
        )
    ],
    ("artifact which", "files"): [
        Row(("artifact", "which", "{path}"), "a.png", a_picture, "file"),
    ],
    ("enqueue train", "policy"): [
        Row(
            (*before, "enqueue", "train", "gpt", "--dataset", "d", "--name", "m", *PROMOTED),
            *("p.toml", holding(POLICY), "file"),
        )
        for before in ((), SCHEDULE)
    ],
    ("enqueue finetune", "policy"): [
        Row(
            ("enqueue", "finetune", "prose", "--dataset", "d", *PROMOTED),
            *("p.toml", holding(POLICY), "file"),
        )
    ],
    ("enqueue evaluate", "judge"): [
        Row(
            (*before, "enqueue", "evaluate", "prose", "--dataset", "d", "--judge={path}"),
            *("m", model, "folder"),
        )
        for before in ((), SCHEDULE)
    ],
    ("enqueue train", "evaluate_judge"): [
        Row(
            ("enqueue", "train", "gpt", "--dataset", "d", "--name", "m", *JUDGED),
            *("m", model, "folder"),
        )
    ],
    ("enqueue finetune", "evaluate_judge"): [
        Row(("enqueue", "finetune", "prose", "--dataset", "d", *JUDGED), "m", model, "folder")
    ],
    ("model promote", "policy"): [
        Row(("model", "promote", "prose", *PROMOTED[1:]), "p.toml", holding(POLICY), "file")
    ],
    ("policy show", "file"): [Row(("policy", "show", "{path}"), "p.toml", holding(POLICY), "file")],
    ("policy noise", "file"): [
        Row(("policy", "noise", "a:1", *PROMOTED[1:]), "p.toml", holding(POLICY), "file")
    ],
    ("key rewrap", "old_key_file"): [
        Row(("key", "rewrap", "--old-key-file", "{path}"), "k", holding("ab" * 32), "file")
    ],
    ("restore", "folder"): [
        Row(("restore", "{path}"), "b", backup, "folder", codes=(2, 4)),
    ],
    ("model import", "folder"): [
        Row(("model", "import", "{path}", "--name", "m", *more), "m", model, "folder")
        for more in ((), ("--unwrap",))
    ],
}
for _verb, _what in (("create", "signing"), ("rotate", "key_0")):
    # the certificate is read first; any file will do for it
    INPUTS[f"key {_verb}", "certificate"] = [
        Row(
            ("key", _verb, _what, "--certificate", "{path}", "--private-key", "{path}"),
            *("c.pem", holding("no PEM"), "file"),
        )
    ]
    INPUTS[f"key {_verb}", "private_key"] = [
        Row(
            ("key", _verb, _what, "--certificate", "home/genmill.db", "--private-key", "{path}"),
            *("k.pem", holding("no PEM"), "file"),
        )
    ]
for _command, _name, _words in (
    ("provenance proof", "older", ("0",)),
    ("provenance audit", "heads", ()),
    ("doctor", "heads", ("--audit",)),
):
    INPUTS[_command, _name] = [
        Row((*_command.split(), *_words, "--head", "{path}"), "h.json", holding("{}"), "file")
    ]
TARGETS: dict[tuple[str, str], list[Row]] = {
    ("provenance audit", "out"): [
        Row(
            ("provenance", "audit", "--out", "{path}"),
            *("h.json", holding(""), "file"),
            codes=(2, 3),
        )
    ],
    ("provenance proof", "out"): [
        Row(
            ("provenance", "proof", "{job}", "--out", "{path}"),
            *("p.json", holding(""), "file"),
            codes=(2, 3),
        )
    ],
    ("backup", "folder"): [Row(("backup", "{path}"), "o", Path.mkdir, "folder", codes=(2, 3))],
    ("artifact download", "output"): [
        Row(
            ("artifact", "download", "{job}", "--as", form, "-o", "{path}"),
            *("o", Path.mkdir, "folder"),
            codes=(2, 3),
        )
        for form in FORMS
    ],
    ("demo", "folder"): [
        Row(("demo", "--write-data", "{path}"), "o", Path.mkdir, "folder", codes=(2, 3))
    ],
    ("dataset show", "sheet"): [
        Row(
            ("dataset", "show", "words", "--sheet", "{path}"),
            *("s.txt", holding(""), "file"),
            codes=(2, 3),
        )
    ],
    ("job export", "folder"): [
        Row(("job", "export", "{job}", "{path}"), "o", Path.mkdir, "folder", codes=(2, 3))
    ],
    ("model compare", "output"): [
        Row(
            ("model", "compare", "pets:1", "pets:2", "-o", "{path}"),
            *("o", Path.mkdir, "folder"),
            codes=(2, 3),
        )
    ],
    ("key export", "path"): [
        Row(("key", "export", "{path}"), "o", Path.mkdir, "folder", codes=(2, 3))
    ],
    ("model export", "folder"): [
        Row(("model", "export", "prose", "{path}"), "o", Path.mkdir, "folder", codes=(2, 3))
    ],
}
ADD = ("dataset", "add", "d", "{text}")
HOME_COMMANDS = (("job", "list"), ("db", "upgrade"), ("up",))
READ_STORE = Row(
    ("artifact", "download", "{job}"), "s", copied("store"), "folder", "file://{path}", (3,)
)
READ_KEY = Row(("key", "create", "head"), "k", holding("ab" * 32), "file", codes=(2, 3))
ONLY_READ = (READ_STORE, READ_KEY)
SETTINGS: dict[str, list[Row]] = {
    "home": [Row(words, "h", home, "folder", codes=(2, 3)) for words in HOME_COMMANDS],
    "key_file": [READ_KEY],
    "database_url": [Row(ADD, "x.db", copied("genmill.db"), "file", "sqlite:///{path}", (3,))],
    "store_url": [
        Row(ADD, "s", Path.mkdir, "folder", "file://{path}", (3,)),
        READ_STORE,
    ],
}
# URLs of servers; files that they name are options
OF_SERVERS = {"redis_url", "s3_endpoint_url"}
OPTIONS: dict[str, str] = {
    "ca_bundle": "s3://b?ca_bundle={path}",
    "ssl_ca_certs": "rediss://h?ssl_ca_certs={path}",
    "ssl_ca_path": "rediss://h?ssl_ca_path={path}",
    "ssl_certfile": "rediss://h?ssl_certfile={path}",
    "ssl_keyfile": "rediss://h?ssl_keyfile={path}",
    "sslrootcert": "postgresql://h/d?sslrootcert={path}",
    "sslcert": "postgresql://h/d?sslcert={path}",
    "sslkey": "postgresql://h/d?sslkey={path}",
    "sslcrl": "postgresql://h/d?sslcrl={path}",
    "sslcrldir": "postgresql://h/d?sslcrldir={path}",
    "passfile": "postgresql://h/d?passfile={path}",
}
NOT_FILES = {"ssl_cert_reqs", "sslcertmode", "scram_client_key", "scram_server_key"} | {
    "sslkeylogfile"  # for who debugs TLS
}
FOLDER_OPTIONS = {"ssl_ca_path", "sslcrldir"}
