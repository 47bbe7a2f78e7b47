"""A text job whose samples carry the watermark: made by a worker, read by the version's files."""

import json
from pathlib import Path

import pytest
import torch

from db import models
from tests.unit.scheduler.cli.test_marks import do
from worker.data.dataset import Shape
from worker.engine.weights import save
from worker.families.gpt import FAMILY
from worker.families.gpt.model import NETWORK
from worker.feeds.tokenizer import train_tokenizer
from worker.keys.keyring import load_keyring
from worker.marks.text_watermark import MARK, tokenizer_in

TEXT = "the cat sat on the mat and the dog ran to the hat; "


@pytest.fixture
def writer(services, tmp_path):
    """The folder of a text model with random weights, `writer` on record."""
    folder = tmp_path / "writer"
    folder.mkdir()
    tokenizer = train_tokenizer([TEXT], kind="characters")
    tokenizer.save(folder)
    shape = Shape("text", vocabulary=tokenizer.size)
    torch.manual_seed(0)
    network = NETWORK(FAMILY.params(layers=1, heads=1, width=8, context=16), shape)
    for parameter in network.parameters():
        torch.nn.init.normal_(parameter, std=0.3)
    network.head.weight.data[tokenizer.end] *= 0
    save(network, folder, family=FAMILY)
    files = {each.name: vars(services.store.put("jobs", each)) for each in folder.iterdir()}
    with services.database.write() as session:
        models.add_version(
            session,
            name="writer",
            family="gpt",
            params=json.loads((folder / "config.json").read_text())["params"],
            files=files,
            weights_sha256=files["model.safetensors"]["sha256"],
            metrics={"loss": 1.5},
            shape=shape.to_json(),
        )
    return folder


def test_texts_of_a_job_carry_the_watermark_of_its_key(genmill, services, writer):
    key = genmill("key", "create", "watermark", "--json").json["id"]
    Path("p.toml").write_text('marks = ["record", "text_watermark"]\n')
    words = ["--seed", "7", "--marks", "p.toml", "--set", "max_tokens=230"]
    settings = [*words, "--set", "top_k=3", "--set", "top_p=1"]
    made = genmill("enqueue", "generate", "writer", "--count", "4", *settings)
    assert made.code == 0, made.err
    job = made.out.strip()
    do(services, job)

    shown = genmill("job", "show", job, "--json").json
    assert shown["status"] == "succeeded", shown
    done = {each["mark"]: each for each in shown["marks"]}["text_watermark"]
    assert genmill("artifact", "download", job, "-o", "out").code == 0
    [file] = Path("out").glob("**/*.jsonl")
    with services.database.read() as session:
        keys = load_keyring(session, services.settings)
    found = [
        MARK.read_text(line, keys, tokenizer_in(writer)) for line in file.read_bytes().splitlines()
    ]
    present = [each for each in found if each.state == "present"]
    assert len(present) == done["applied"] >= 1
    assert {each.says["key"] for each in present} == {key}
    assert done["applied"] + done["not_applied"] == 4
