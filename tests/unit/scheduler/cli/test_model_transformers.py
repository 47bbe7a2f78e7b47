"""Causal language models in the layout of transformers, taken in and handed on by the command."""

import json
from pathlib import Path

import pytest

from db import models
from scheduler.dispatch.garbage import collect_jobs
from worker.engine.tensors import read_tensors, write_tensors

DIGEST = "0" * 64
SPLIT = {
    "type": "Split",
    "pattern": {"Regex": "(a+)+$"},
    "behavior": "Isolated",
    "invert": False,
}


def change(path, **values):
    data = json.loads(path.read_text("utf-8"))
    kept = {key: value for key, value in (data | values).items() if value is not None}
    path.write_text(json.dumps(kept), "utf-8")


def cut_up(folder):
    """The weights in two files and an index, as transformers saves a large model."""
    tensors, _ = read_tensors(folder / "model.safetensors")
    (folder / "model.safetensors").unlink()
    names = sorted(tensors)
    parts = {"model-1-of-2.safetensors": names[::2], "model-2-of-2.safetensors": names[1::2]}
    for file, some in parts.items():
        write_tensors(folder / file, {name: tensors[name] for name in some}, about={})
    index = {"weight_map": {name: file for file, some in parts.items() for name in some}}
    (folder / "model.safetensors.index.json").write_text(json.dumps(index), "utf-8")


def put_adapter(folder, **values):
    """An adapter of rank 2 on the first layer's queries, all of whose numbers are 1."""
    import torch

    layer = "base_model.model.model.layers.0.self_attn.q_proj"
    tensors = {
        f"{layer}.lora_A.weight": torch.ones(2, 32),
        f"{layer}.lora_B.weight": torch.ones(32, 2),
    }
    write_tensors(folder / "adapter_model.safetensors", tensors, about={})
    config = {"peft_type": "LORA", "r": 2, "lora_alpha": 8, "fan_in_fan_out": False}
    config |= {"target_modules": ["layers.0.self_attn.q_proj"], **values}
    (folder / "adapter_config.json").write_text(json.dumps(config), "utf-8")


def test_a_model_of_transformers_becomes_a_version_of_hf(genmill, tiny):
    made = genmill("model", "import", "tiny", "--name", "writer", "--json").json
    assert (made["family"], made["version"], made["params"]["context"]) == ("hf", 1, 48)
    shown = genmill("model", "show", "writer", "--json").json
    assert set(shown["files"]) == {path.name for path in tiny.iterdir()}
    assert shown["weights_sha256"] == shown["files"]["model.safetensors"]["sha256"]


def test_an_export_is_what_transformers_wrote_and_comes_back_by_import(genmill, tiny):
    genmill("model", "import", "tiny", "--name", "writer")
    assert genmill("model", "export", "writer", "out").code == 0
    for path in tiny.iterdir():
        if path.name != "config.json":
            assert (Path("out") / path.name).read_bytes() == path.read_bytes()
    config = json.loads((Path("out") / "config.json").read_text("utf-8"))
    assert config.pop("genmill")["family"] == "hf"
    assert config == json.loads((tiny / "config.json").read_text("utf-8"))
    assert "library_name: transformers" in (Path("out") / "README.md").read_text("utf-8")
    again = genmill("model", "import", "out", "--name", "writer", "--json").json
    first = genmill("model", "show", "writer:1", "--json").json
    assert (again["version"], again["weights_sha256"]) == (2, first["weights_sha256"])
    assert again["params"] == first["params"]


def test_weights_in_several_files_are_taken_by_the_index(genmill, tiny):
    cut_up(tiny)
    made = genmill("model", "import", "tiny", "--name", "writer", "--json").json
    shown = genmill("model", "show", "writer", "--json").json
    assert {"model-1-of-2.safetensors", "model-2-of-2.safetensors"} <= set(shown["files"])
    assert len(made["weights_sha256"]) == 64
    (tiny / "model-2-of-2.safetensors").unlink()
    lacking = genmill("model", "import", "tiny", "--name", "writer")
    assert (lacking.code, "no model-2-of-2.safetensors" in lacking.err) == (2, True)


def test_an_adapter_beside_its_base_is_exported_alone_or_merged(genmill, tiny):
    put_adapter(tiny)
    made = genmill("model", "import", "tiny", "--name", "writer", "--json").json
    assert (made["params"]["rank"], made["params"]["alpha"]) == (2, 8)
    assert made["params"]["targets"] == []  # the adapter's own are in its configuration
    genmill("model", "export", "writer", "whole")
    assert (Path("whole") / "adapter_model.safetensors").is_file()
    out = genmill("model", "export", "writer", "merged", "--merge", "--json")
    names = set(out.json["files"])
    assert names == {path.name for path in Path("merged").iterdir()}
    assert not {"adapter_config.json", "adapter_model.safetensors"} & names
    before, _ = read_tensors(tiny / "model.safetensors")
    after, _ = read_tensors(Path("merged") / "model.safetensors")
    changed = {
        name: after[name] - before[name] for name in before if (after[name] != before[name]).any()
    }
    assert list(changed) == ["model.layers.0.self_attn.q_proj.weight"]
    # every number changes by alpha / rank times the sum of two products of ones
    assert all(value == pytest.approx(8.0, abs=1e-5) for value in changed.popitem()[1].flatten())
    assert genmill("model", "import", "merged", "--name", "plain").out == "plain:1\n"
    listed = {line.split()[1] for line in Path("merged/SHA256SUMS").read_text().splitlines()}
    assert names - listed == {"README.md", "SHA256SUMS"}


def test_a_version_without_an_adapter_has_nothing_to_merge(genmill, tiny, digits):
    genmill("model", "import", "tiny", "--name", "writer")
    for name in ("writer", digits):
        wrong = genmill("model", "export", name, "out", "--merge")
        assert (wrong.code, "no adapter" in wrong.err) == (2, True)
        assert not (Path("out") / "model.safetensors").exists()


def spoil(how):
    """What may be wrong with a folder, by name."""
    config, tokenizer = Path("tiny/config.json"), Path("tiny/tokenizer_config.json")
    weights, index = Path("tiny/model.safetensors"), Path("tiny/model.safetensors.index.json")
    steps = {
        "remote code": lambda: change(config, auto_map={"AutoModel": "own.Model"}),
        "remote tokenizer": lambda: change(tokenizer, auto_map={"AutoTokenizer": "own.T"}),
        "pickle": lambda: weights.rename("tiny/pytorch_model.bin"),
        "no tokenizer": lambda: Path("tiny/tokenizer.json").unlink(),
        "other task": lambda: change(config, architectures=["BertForMaskedLM"]),
        "two halves": lambda: change(config, is_encoder_decoder=True),
        "quantised": lambda: change(config, quantization_config={"bits": 4}),
        "no model": lambda: change(config, model_type=None, architectures=None),
        "path": lambda: (
            weights.unlink()
            or index.write_text(json.dumps({"weight_map": {"a": "../x.safetensors"}}))
        ),
        "no map": lambda: weights.unlink() or index.write_text("{}"),
        "half an adapter": lambda: Path("tiny/adapter_config.json").write_text("{}"),
        "other adapter": lambda: put_adapter(Path("tiny"), peft_type="IA3"),
        "dora": lambda: put_adapter(Path("tiny"), use_dora=True),
        "lora bias": lambda: put_adapter(Path("tiny"), lora_bias=True),
        "pissa": lambda: put_adapter(Path("tiny"), init_lora_weights="pissa_niter_4"),
        "new tokens": lambda: put_adapter(Path("tiny"), trainable_token_indices=[3]),
        "backtracking": lambda: change(Path("tiny/tokenizer.json"), pre_tokenizer=SPLIT),
        "torn": lambda: weights.write_bytes(weights.read_bytes()[:-8]),
    }
    steps[how]()


@pytest.mark.parametrize(
    ("how", "says"),
    [
        ("remote code", "config.json: auto_map names code of the model's own, which is never run"),
        ("remote tokenizer", "tokenizer_config.json: auto_map names code"),
        ("pickle", "pytorch_model.bin may run code when opened and is never read"),
        ("no tokenizer", "no tokenizer.json; write the tokenizer there"),
        ("other task", "is not a causal language model"),
        ("two halves", "is not a causal language model"),
        ("quantised", "the weights are quantised"),
        ("no model", "no 'genmill' and no 'model_type'"),
        ("path", "'../x.safetensors' is not a plain name"),
        ("no map", "no weight_map"),
        ("half an adapter", "adapter_config.json but no adapter_model.safetensors"),
        ("other adapter", "only plain LoRA adapters"),
        ("dora", "only plain LoRA adapters are accepted, not use_dora True"),
        ("lora bias", "not lora_bias True"),
        ("pissa", "not init_lora_weights 'pissa_niter_4'"),
        ("new tokens", "not trainable_token_indices [3]"),
        ("backtracking", "tokenizer.json: a regular expression takes too much"),
        ("torn", "bytes of tensors, but the header says"),
    ],
)
def test_a_folder_that_cannot_be_taken_is_refused_in_one_line(genmill, tiny, how, says):
    spoil(how)
    wrong = genmill("model", "import", "tiny", "--name", "writer")
    assert (wrong.code, wrong.err.count("\n")) == (2, 1)
    assert says in wrong.err
    assert genmill("model", "list", "--json").json == []


def test_a_name_cannot_hold_models_of_two_families(genmill, tiny, digits):
    wrong = genmill("model", "import", "tiny", "--name", digits)
    assert (wrong.code, "is of family 'gan', not 'hf'" in wrong.err) == (2, True)


def test_training_hf_from_nothing_is_refused_with_the_way_to_go(genmill, services, sentences):
    wrong = genmill("enqueue", "train", "hf", "--dataset", sentences, "--name", "writer")
    assert wrong.code == 2
    assert "model import" in wrong.err
    assert "enqueue finetune" in wrong.err


def test_a_child_s_names_keep_its_base_s_objects(genmill, services, tiny, commit):
    genmill("model", "import", "tiny", "--name", "writer")
    with services.database.read() as session:
        _, base = models.resolve(session, "writer")
    job = genmill("enqueue", "generate", "writer", "--count", "2").out.strip()
    own = services.store.put_bytes(f"jobs/{job}/blobs", b"an adapter")
    lost = services.store.put_bytes(f"jobs/{job}/blobs", b"nobody's")
    commit(job)
    with services.database.write() as session:
        models.add_version(
            session,
            name="writer",
            family="hf",
            params=base.params,
            files=base.files | {"adapter_model.safetensors": vars(own)},
            weights_sha256=DIGEST,
            metrics={},
            parent_id=base.id,
        )
    assert collect_jobs(services, older_than_s=-1) == 1
    kept = {*services.store.keys("models"), *services.store.keys(f"jobs/{job}")}
    assert {own.key, *(file["key"] for file in base.files.values())} <= kept
    assert lost.key not in kept


@pytest.fixture
def sentences(services):
    """The name of a text dataset on record."""
    from db import datasets

    with services.database.write() as session:
        datasets.add_version(
            session,
            name="sentences",
            kind="text",
            manifest_key=f"datasets/blobs/{DIGEST}",
            manifest_sha256=DIGEST,
            summary={"counts": {"train": 8}, "labels": [], "shape": {"media": "text"}},
        )
    return "sentences"
