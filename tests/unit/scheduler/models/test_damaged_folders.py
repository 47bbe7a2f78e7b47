"""Folders damaged at random: each is imported or refused in words, within seconds."""

import json
import os
import shutil
import time
from contextlib import suppress
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from db.errors import NotFound, Refused
from scheduler.models.folder_check import check_folder
from scheduler.models.weights_check import unwrapped
from tests.families.causal import CHAT, KINDS, write_base
from tests.families.kit import SENTENCES
from worker.engine.inspection import inspect
from worker.files import digest_of

EXAMPLES = int(os.environ.get("FOLDERS", "60"))  # FOLDERS=5000 for a longer run
LIMIT_S = 30  # of one folder, on a machine that does other things besides
JSON = ("config.json", "tokenizer.json", "tokenizer_config.json", "generation_config.json")
VALUES = st.one_of(
    st.none(), st.booleans(), st.integers(-(2**70), 2**70), st.text(max_size=8),
    st.sampled_from([0, -1, 1, 2**31, 0.5, -1e308, float("nan"), [], {}, [[]]]),
    st.sampled_from(["gpt2", "llama", "mamba", "\ud800"]),
)  # fmt: skip


@pytest.fixture(scope="module")
def bases(tmp_path_factory):
    folder = tmp_path_factory.mktemp("bases")
    return {
        kind: write_base(folder / kind, SENTENCES, kind=kind, chat=CHAT) for kind in sorted(KINDS)
    }


def places(data, path=()):
    """The paths of all values inside JSON data."""
    items = data.items() if isinstance(data, dict) else enumerate(data)
    for key, value in items:
        yield (*path, key)
        if isinstance(value, dict | list):
            yield from places(value, (*path, key))


def change_value(draw, data):
    """Replace or remove a value of JSON data somewhere."""
    *path, last = draw(st.sampled_from([*places(data)]))
    inner = data
    for key in path:
        inner = inner[key]
    if draw(st.booleans()):
        inner[last] = draw(VALUES)
    else:
        del inner[last]


def change_json(draw, folder):
    path = folder / draw(st.sampled_from(JSON))
    data = json.loads(path.read_text("utf-8"))
    for _ in range(draw(st.integers(1, 3))):
        change_value(draw, data)
    path.write_text(json.dumps(data), "utf-8")


def change_header(draw, folder):
    path = folder / "model.safetensors"
    raw = path.read_bytes()
    end = 8 + int.from_bytes(raw[:8], "little")
    header = json.loads(raw[8:end])
    change_value(draw, header)
    text = json.dumps(header).encode()
    path.write_bytes(len(text).to_bytes(8, "little") + text + raw[end:])


def change_bytes(draw, folder):
    path = folder / draw(st.sampled_from([*JSON, "model.safetensors"]))
    raw = bytearray(path.read_bytes())
    start = draw(st.one_of(st.integers(0, min(len(raw), 300)), st.integers(0, len(raw))))
    stop = min(len(raw), start + draw(st.integers(0, 64)))
    raw[start:stop] = draw(st.binary(max_size=16))
    path.write_bytes(raw)


def remove(draw, folder):
    path = folder / draw(st.sampled_from([*JSON, "model.safetensors"]))
    path.unlink()


CHANGES = (change_json, change_json, change_header, change_bytes, remove)


@settings(
    max_examples=EXAMPLES,
    deadline=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture],
)
@given(data=st.data())
def test_a_damaged_folder_is_imported_or_refused_in_words(bases, tmp_path_factory, data):
    folder = tmp_path_factory.mktemp("damaged") / "model"
    shutil.copytree(bases[data.draw(st.sampled_from(sorted(bases)))], folder)
    for _ in range(data.draw(st.integers(1, 2))):
        with suppress(FileNotFoundError, ValueError):  # it is damaged enough
            data.draw(st.sampled_from(CHANGES))(data.draw, folder)
    began = time.monotonic()
    with suppress(Refused, NotFound):
        import_all(folder)
    shutil.rmtree(folder.parent)
    assert time.monotonic() - began < LIMIT_S


def import_all(folder: Path) -> None:
    """What an import does, but for storing."""
    with unwrapped(folder) as plain:
        found = check_folder(plain)
        digests = {name: digest_of(plain / name) for name in found.names}
        with found.as_version(digests) as version:
            config, _ = found.version_config(digests, inspect(version))
        assert config.encode()
