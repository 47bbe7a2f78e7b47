"""Ten architectures from configuration to merged export, compared with transformers itself."""

import json
import re
import shutil
from contextlib import closing
from copy import deepcopy
from pathlib import Path

import pytest
import torch
from transformers import AutoModelForCausalLM, AutoTokenizer

from db.errors import NonFinite, Refused
from scheduler.models.import_model import import_model
from tests.families.architectures import ARCHITECTURES
from tests.families.causal import write_base
from tests.families.export import export_and_import, fetch, open_home
from tests.families.kit import SENTENCES, Recorder, run
from tests.unit.worker.families.test_hf import ROWS, write_rows
from worker.engine.generate import Generation, generate
from worker.engine.inspection import inspect
from worker.engine.train import Training
from worker.engine.weights import load
from worker.families.hf import FAMILY, HfSampling
from worker.families.hf.probes import supports_packing
from worker.networks.version_folder import read_record
from worker.specs import Prompt, parse_params

CPU = torch.device("cpu")
PROMPTS = ["The cat sees", "The dog", "The hen likes the box. The cat has the mat and"]
FEW = {
    "context": 32, "batch_size": 8, "micro_batch": 8, "rank": 4, "lr": 0.02, "warmup": 0,
    "preview_every": 1000,
}  # fmt: skip
TABLE = Path(__file__).parents[4] / "docs/families.md"


@pytest.fixture(scope="module", params=ARCHITECTURES)
def name(request):
    return request.param


@pytest.fixture(scope="module")
def version(name, tmp_path_factory, sqlite_template):
    """A version on record, and the folder of its files."""
    folder = tmp_path_factory.mktemp("architecture")
    given = write_base(folder / "given", SENTENCES, kind=ARCHITECTURES[name].config)
    with closing(open_home(folder / "home", sqlite_template)) as services:
        _, found = import_model(services, given, "model", inspect=inspect)
        return found, fetch(services, found, folder / "files")


@pytest.fixture(scope="module")
def tuned(version, tmp_path_factory):
    """The folder of a version whose adapter was trained for some steps, as the import set it up."""
    folder = tmp_path_factory.mktemp("tuned")
    params = parse_params(FAMILY.params, version[0].params | FEW, what="hf")
    dataset = write_rows(folder / "rows", ROWS)
    asked = Training(
        FAMILY, params, dataset, folder / "run", max_steps=4, parent=version[1], seed=1
    )
    return run(asked)


def texts(folder):
    network = load(folder, device=CPU)[1]
    asked = tuple(Prompt(prompt=prompt) for prompt in PROMPTS)
    settings = HfSampling(max_tokens=10, micro_batch=4, temperature=0)
    job = Generation(network, settings, 3, 0, len(PROMPTS), prompts=asked)
    return [sample.output for sample in generate(job, Recorder())]


def greedy(folder):
    """The texts that transformers itself generates."""
    model = AutoModelForCausalLM.from_pretrained(folder, local_files_only=True).eval()
    tokenizer = AutoTokenizer.from_pretrained(folder, local_files_only=True)
    made = []
    for prompt in PROMPTS:
        ids = tokenizer(prompt, return_tensors="pt").input_ids
        [tokens] = model.generate(ids, do_sample=False, max_new_tokens=10, pad_token_id=0)
        text = tokenizer.decode(tokens[ids.shape[1] :], skip_special_tokens=True)
        made.append(text.rstrip("\ufffd"))
    return made


def test_an_import_finds_out_what_the_architecture_can_do(name, version):
    expected = ARCHITECTURES[name]
    found, folder = version
    assert (found.metrics["cache"], found.metrics["packing"]) == (expected.cache, expected.packing)
    assert found.params["packing"] == expected.packing
    assert found.params["targets"] == [*expected.targets]
    assert read_record(folder)["has_cache"] == expected.cache


def test_its_likeliest_texts_are_those_of_transformers(version):
    assert texts(version[1]) == greedy(version[1])


def test_it_is_fine_tuned_and_merged_into_a_plain_model(version, tuned, tmp_path, sqlite_template):
    merged = export_and_import(tuned.folder, tmp_path, sqlite_template, family=FAMILY, merge=True)
    assert not list(merged.glob("adapter_*"))
    assert texts(merged) == texts(tuned.folder) == greedy(tmp_path / "exported")
    assert texts(merged) != texts(version[1])


def test_the_table_in_the_documentation_has_what_the_imports_find():
    text = TABLE.read_text("utf-8")
    rows = re.findall(r"^\| ([\w-]+) \| (yes|no) \| (yes|no) \| (.+?) \|$", text, re.M)
    words = {True: "yes", False: "no"}
    assert rows == [
        (name, words[one.cache], words[one.packing], " and ".join(one.targets) or "all linear")
        for name, one in ARCHITECTURES.items()
    ]


def test_what_an_earlier_import_did_not_find_out_is_tried_at_work(name, version, tmp_path):
    folder = tmp_path / "earlier"
    shutil.copytree(version[1], folder)
    config = json.loads((folder / "config.json").read_text("utf-8"))
    del config["genmill"]["has_cache"]
    (folder / "config.json").write_text(json.dumps(config), "utf-8")
    assert texts(folder) == texts(version[1])


def test_an_error_of_the_model_s_own_code_is_final_and_in_words(version):
    network = load(version[1], device=CPU)[1]
    beyond = torch.full((1, 4), 100_000)
    with pytest.raises(Refused, match=r"For\w+|HeadModel .* cannot do this: IndexError"):
        network.next_logits(beyond, torch.ones_like(beyond), None)


def test_damaged_weights_are_named_as_such_when_packing_is_tried(version):
    model = deepcopy(load(version[1], device=CPU)[1].base.model)
    with torch.no_grad():
        model.get_input_embeddings().weight.fill_(torch.nan)
    with pytest.raises(NonFinite, match="its weights are damaged"):
        supports_packing(model)
