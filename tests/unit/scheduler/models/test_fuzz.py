"""Mutated folders of models and tokenizers: imported and able to generate, or refused in words."""

import json
import shutil
from contextlib import suppress
from pathlib import Path
from tempfile import TemporaryDirectory

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from tokenizers import Tokenizer, models, pre_tokenizers
from transformers import PreTrainedTokenizerFast

from db.errors import GenmillError
from scheduler.models.folder_check import check_folder
from scheduler.models.weights_check import unwrapped
from tests import fuzzing
from tests.families.architectures import ARCHITECTURES
from tests.families.causal import CHAT, END, write_base
from tests.families.kit import SENTENCES, Recorder
from tests.fuzzing import change_json, mutated, within_limits
from worker.engine.generate import Generation, generate
from worker.engine.inspection import inspect
from worker.engine.tensors import read_tensors, write_tensors
from worker.engine.weights import load
from worker.families.hf import HfSampling
from worker.files import digest_of
from worker.networks.version_folder import CONFIG
from worker.specs import Prompt

WEIGHTS, ADAPTER = "model.safetensors", "adapter_model.safetensors"
INDEX = f"{WEIGHTS}.index.json"
MUTATED = {
    "config": ["config.json"],
    "generation": ["generation_config.json"],
    "tokenizer": ["tokenizer.json"],
    "tokenizer_config": ["tokenizer_config.json"],
    "tokens": ["special_tokens_map.json", "added_tokens.json", "vocab.json", "merges.txt"],
    "template": ["chat_template.jinja"],
    "weights": [WEIGHTS, "model-1-of-2.safetensors"],
    "index": [INDEX],
    "adapter": ["adapter_config.json", ADAPTER],
}
fuzz = fuzzing.fuzz(len(MUTATED), few=100)


@pytest.fixture(scope="module", autouse=True)
def one_thread():
    """Threads only cost time with models this small."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture(scope="module")
def bases(tmp_path_factory):
    """A model of each architecture, one in parts, one with an adapter, and other tokenizers."""
    folder = tmp_path_factory.mktemp("bases")
    made = {
        name: write_base(folder / name, SENTENCES, kind=each.config, chat=CHAT)
        for name, each in ARCHITECTURES.items()
    }
    for name in ("parts", "adapter", "Unigram", "WordPiece", "WordLevel"):
        made[name] = folder / name
        shutil.copytree(made["Llama"], made[name])
    cut_up(made["parts"])
    put_adapter(made["adapter"])
    words = {END: 0, "[UNK]": 1, "the": 2, "cat": 3, "##s": 4, "▁the": 5, "c": 6}
    replace_tokenizer(made["Unigram"], models.Unigram([(word, -0.5) for word in words], 1, True))
    replace_tokenizer(made["WordPiece"], models.WordPiece(words, unk_token="[UNK]"))
    replace_tokenizer(made["WordLevel"], models.WordLevel(words, unk_token="[UNK]"))
    return made


def replace_tokenizer(folder, model):
    inner = Tokenizer(model)
    inner.pre_tokenizer = pre_tokenizers.Whitespace()
    PreTrainedTokenizerFast(
        tokenizer_object=inner, bos_token=END, eos_token=END, unk_token="[UNK]"
    ).save_pretrained(folder)
    tokens = {"bos_token": END, "eos_token": {"content": END, "lstrip": False}}
    (folder / "special_tokens_map.json").write_text(json.dumps(tokens), "utf-8")
    (folder / "added_tokens.json").write_text(json.dumps({"[MASK]": 7}), "utf-8")
    known = json.loads((folder / "tokenizer.json").read_text("utf-8"))["model"]["vocab"]
    vocab = known if isinstance(known, dict) else {word: i for i, (word, _) in enumerate(known)}
    (folder / "vocab.json").write_text(json.dumps(vocab), "utf-8")
    (folder / "merges.txt").write_text("#version: 0.2\nt h\nth e\n", "utf-8")


def cut_up(folder):
    tensors, _ = read_tensors(folder / WEIGHTS)
    (folder / WEIGHTS).unlink()
    names = sorted(tensors)
    parts = {"model-1-of-2.safetensors": names[::2], "model-2-of-2.safetensors": names[1::2]}
    for file, some in parts.items():
        write_tensors(folder / file, {name: tensors[name] for name in some}, about={})
    index = {"weight_map": {name: file for file, some in parts.items() for name in some}}
    (folder / INDEX).write_text(json.dumps(index), "utf-8")


def put_adapter(folder):
    layer = "base_model.model.model.layers.0.self_attn.q_proj"
    tensors = {
        f"{layer}.lora_A.weight": torch.ones(2, 32),
        f"{layer}.lora_B.weight": torch.ones(32, 2),
    }
    write_tensors(folder / ADAPTER, tensors, about={})
    config = {
        "peft_type": "LORA", "r": 2, "lora_alpha": 8, "fan_in_fan_out": False, "bias": "none",
        "target_modules": ["layers.0.self_attn.q_proj"], "lora_dropout": 0.0,
    }  # fmt: skip
    (folder / "adapter_config.json").write_text(json.dumps(config), "utf-8")


def change_header(draw, raw):
    end = 8 + int.from_bytes(raw[:8], "little")
    text = change_json(draw, raw[8:end])
    return len(text).to_bytes(8, "little") + text + raw[end:]


def change_file(draw, path):
    raw = path.read_bytes()
    if path.suffix == ".json" and draw(st.integers(0, 3)):
        path.write_bytes(change_json(draw, raw))
    elif path.suffix == ".safetensors" and draw(st.booleans()):
        path.write_bytes(change_header(draw, raw))
    elif draw(st.integers(0, 30)):
        path.write_bytes(draw(mutated(raw)))
    else:
        path.unlink()


@pytest.mark.filterwarnings("ignore")  # of libraries, about settings that they ignore
@pytest.mark.parametrize("kind", MUTATED)
@fuzz
@given(data=st.data())
def test_a_mutated_model_gets_an_answer(bases, kind, data):
    name = data.draw(st.sampled_from(MUTATED[kind]))
    having = [base for base, path in sorted(bases.items()) if (path / name).is_file()]
    with TemporaryDirectory() as made:
        folder = Path(made) / "model"
        shutil.copytree(bases[data.draw(st.sampled_from(having))], folder)
        change_file(data.draw, folder / name)
        with within_limits(), suppress(GenmillError):
            try_model(folder)


def try_model(folder: Path) -> None:
    """Import a model, but for storing it, and generate texts with the version."""
    with unwrapped(folder) as plain:
        found = check_folder(plain)
        digests = {name: digest_of(plain / name) for name in found.names}
        with found.as_version(digests) as version:
            config, _ = found.version_config(digests, inspect(version))
            (version / CONFIG).write_text(config, "utf-8")
            _, network = load(version, device=torch.device("cpu"))
            asked = Generation(
                network, HfSampling(max_tokens=3), 1, 0, 2, prompts=(Prompt(prompt="The cat"),)
            )
            assert len([*generate(asked, Recorder())]) == 2
