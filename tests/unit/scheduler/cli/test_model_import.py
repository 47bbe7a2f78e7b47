"""Folders as people really have them: each is imported as what it is meant to be, or named."""

import json
import re
from pathlib import Path

import pytest

from tests.families.causal import write_base
from tests.families.folder_faults import (
    FAULTS,
    HEAD,
    LAYER,
    WEIGHTS,
    as_kind,
    change,
    renamed,
    rewrite,
    shards,
    tie,
)
from tests.families.kit import SENTENCES
from worker.engine.tensors import read_tensors


@pytest.mark.parametrize("fault", FAULTS)
def test_a_folder_that_is_not_what_was_meant_is_refused_in_words(genmill, tiny, fault):
    spoil, says = FAULTS[fault]
    spoil(tiny)
    wrong = genmill("model", "import", "tiny", "--name", "m")
    assert (wrong.code, wrong.err.count("\n")) == (2, 1), wrong.err
    assert re.search(says, wrong.err), wrong.err
    assert genmill("model", "list", "--json").json == []
    assert not [
        path for path in Path("home").rglob("*") if "blobs" in path.parts and path.is_file()
    ]


ODD_TOKENS = {
    "beyond": ({"pad_token_id": 4096, "eos_token_id": [0, 4096]}, "pad_token_id is 4096, but"),
    "of another kind": ({"bos_token_id": -1}, "bos_token_id is -1, but the model's tokens are 0"),
    "no number": ({"eos_token_id": [{}, "2", True]}, "eos_token_id is {}, but the model's tokens"),
    "another end": ({"eos_token_id": [5, 6]}, "eos_token_id is 5, 6, but 0 by the tokenizer"),
    "another begin": ({"bos_token_id": 7}, "bos_token_id is 7, but 0 by the tokenizer"),
    "none": ({"eos_token_id": None}, None),
}


@pytest.mark.parametrize("odd", ODD_TOKENS)
def test_special_tokens_that_disagree_are_told_and_kept_on_record(genmill, tiny, odd):
    settings, says = ODD_TOKENS[odd]
    change(tiny / "generation_config.json", **settings)
    made = genmill("model", "import", "tiny", "--name", "m")
    assert made.code == 0
    assert (f"warning: {says}" in made.err) if says else not made.err
    kept = genmill("model", "show", "m", "--json").json["metrics"].get("warnings", [])
    assert bool(kept) == bool(says)


def test_a_file_in_place_of_a_folder_is_named(genmill, home):
    Path("m.gguf").write_bytes(b"GGUF" + bytes(20))
    for options in ([], ["--unwrap"]):
        wrong = genmill("model", "import", "m.gguf", "--name", "m", *options)
        assert (wrong.code, "m.gguf: a GGUF file" in wrong.err) == (2, True)
        none = genmill("model", "import", "nowhere", "--name", "m", *options)
        assert (none.code, "nowhere cannot be read: No such file" in none.err) == (2, True)


def test_the_folder_of_a_download_cache_is_not_the_model_s(genmill, tiny):
    snapshot = Path("models--org--tiny/snapshots/0123")
    snapshot.parent.mkdir(parents=True)
    tiny.rename(snapshot)
    wrong = genmill("model", "import", "models--org--tiny", "--name", "m")
    assert (wrong.code, f"give the model's own folder: {snapshot}" in wrong.err) == (2, True)
    assert genmill("model", "import", str(snapshot), "--name", "m").out == "m:1\n"


WRAPPERS = {
    "torch.compile": lambda n: f"_orig_mod.{n}",
    "data parallel": lambda n: f"module.{n}",
    "peft": lambda n: f"base_model.model.{n}",
    "several": lambda n: f"module._orig_mod.{n.replace('mlp', '_fsdp_wrapped_module.mlp')}",
}


@pytest.mark.parametrize("wrapper", WRAPPERS)
@pytest.mark.parametrize("files", ["one", "several"])
def test_unwrap_imports_the_model_that_was_wrapped(genmill, tiny, wrapper, files):
    import torch

    before, _ = read_tensors(tiny / WEIGHTS)
    renamed(tiny, WRAPPERS[wrapper])
    if files == "several":
        shards(tiny)
    made = genmill("model", "import", "tiny", "--name", "m", "--unwrap")
    assert made.out == "m:1\n", made.err
    genmill("model", "export", "m", "out")
    after = {
        n: v for path in Path("out").glob("*.safetensors") for n, v in read_tensors(path)[0].items()
    }
    assert after.keys() == before.keys()
    assert all(torch.equal(after[name], before[name]) for name in before)


def test_unwrap_takes_a_model_without_a_wrapper_as_it_is(genmill, tiny):
    assert genmill("model", "import", "tiny", "--name", "m").out == "m:1\n"
    again = genmill("model", "import", "tiny", "--name", "m", "--unwrap", "--json").json
    assert (again["version"], again["weights_sha256"]) == (
        2,
        genmill("model", "show", "m:1", "--json").json["weights_sha256"],
    )


@pytest.mark.parametrize("dtype", ["float16", "bfloat16", "float64"])
def test_weights_of_any_precision_are_taken(genmill, tiny, dtype):
    as_kind(tiny, dtype)
    assert genmill("model", "import", "tiny", "--name", "m").out == "m:1\n"


@pytest.mark.parametrize("keep", ["both", "head", "embeddings"])
def test_tied_weights_may_be_stored_once_or_twice(genmill, tiny, keep):
    tie(tiny, keep)
    made = genmill("model", "import", "tiny", "--name", "m")
    assert made.out == "m:1\n", made.err


def test_what_older_versions_of_a_library_stored_is_no_tensor_too_many(genmill, tiny):
    import torch

    buffer = {f"{LAYER.removesuffix('.q_proj')}.rotary_emb.inv_freq": torch.ones(8)}
    rewrite(tiny, lambda tensors: tensors | buffer)
    assert genmill("model", "import", "tiny", "--name", "m").out == "m:1\n"


def test_one_file_of_weights_goes_before_an_index_that_was_left_beside_it(genmill, tiny):
    change(tiny / f"{WEIGHTS}.index.json", weight_map={HEAD: "model-1-of-2.safetensors"})
    made = genmill("model", "import", "tiny", "--name", "m", "--json")
    assert made.code == 0, made.err
    assert f"{WEIGHTS}.index.json" not in made.json["files"]


def test_gpt2_as_it_was_published_is_taken(genmill, home):
    """Its tensors lack the prefix of the architecture, and there are masks among them."""
    import torch

    folder = write_base(Path("gpt2"), SENTENCES, kind="gpt2")
    renamed(folder, lambda name: name.removeprefix("transformer."))
    masks = {f"h.{layer}.attn.bias": torch.ones(1, 1, 48, 48) for layer in range(2)}
    rewrite(folder, lambda tensors: tensors | masks)
    made = genmill("model", "import", "gpt2", "--name", "m")
    assert made.out == "m:1\n", made.err


def test_an_index_without_metadata_and_a_shard_s_leftovers_are_no_matter(genmill, tiny):
    shards(tiny)
    index = json.loads((tiny / f"{WEIGHTS}.index.json").read_text())
    (tiny / f"{WEIGHTS}.index.json").write_text(json.dumps({"weight_map": index["weight_map"]}))
    (tiny / ".cache").mkdir()
    (tiny / "other.incomplete").write_bytes(b"")
    assert genmill("model", "import", "tiny", "--name", "m").out == "m:1\n"


def test_a_model_that_reads_ahead_is_not_causal(genmill, home):
    from transformers import BertConfig

    def bert(size):
        return BertConfig(
            vocab_size=size, hidden_size=32, num_hidden_layers=1, num_attention_heads=2,
            intermediate_size=32, architectures=["BertLMHeadModel"], is_decoder=True,
        )  # fmt: skip

    folder = write_base(Path("bert"), SENTENCES, kind=bert)
    assert genmill("model", "import", "bert", "--name", "m").out == "m:1\n"
    change(folder / "config.json", is_decoder=False)
    wrong = genmill("model", "import", "bert", "--name", "m")
    assert (wrong.code, "is not causal: later tokens change" in wrong.err) == (2, True), wrong.err


def test_packing_that_an_architecture_cannot_do_is_off_and_refused_when_asked_for(genmill, home):
    from tests.families.architectures import ARCHITECTURES

    write_base(Path("opt"), SENTENCES, kind=ARCHITECTURES["OPT"].config)
    made = genmill("model", "import", "opt", "--name", "m", "--json").json
    assert (made["params"]["packing"], made["metrics"]["packing"]) == (False, False)
    genmill("model", "export", "m", "out")
    change(Path("out/config.json"), genmill=None)
    (Path("out") / "SHA256SUMS").unlink()
    assert (
        genmill("model", "import", "out", "--name", "n", "--json").json["params"] == made["params"]
    )
