"""What can be wrong with a folder of a model, done to a tiny one, and what is said of it."""

import json
import shutil

import torch
from safetensors.torch import save_file

from worker.engine.tensors import read_tensors, write_tensors

POINTER = (
    "version https://git-lfs.github.com/spec/v1\noid sha256:" + "0" * 64 + "\nsize 4294967296\n"
)
WEIGHTS = "model.safetensors"
HEAD = "lm_head.weight"
LAYER = "model.layers.0.self_attn.q_proj"


def change(path, **values):
    data = json.loads(path.read_text("utf-8")) if path.exists() else {}
    path.write_text(json.dumps(data | values), "utf-8")


def rewrite(folder, step, file=WEIGHTS):
    """Store the tensors that `step` makes of the folder's."""
    tensors, _ = read_tensors(folder / file)
    made = {name: torch.as_tensor(value) for name, value in step(tensors).items()}
    save_file({name: value.contiguous().clone() for name, value in made.items()}, folder / file)


def renamed(folder, rename):
    rewrite(folder, lambda tensors: {rename(name): value for name, value in tensors.items()})


def with_tensor(folder, name, change_it):
    rewrite(folder, lambda tensors: tensors | {name: change_it(tensors[name])})


def shards(folder, *, index=True):
    tensors, _ = read_tensors(folder / WEIGHTS)
    (folder / WEIGHTS).unlink()
    parts = {f"model-0000{i + 1}-of-00002.safetensors": sorted(tensors)[i::2] for i in range(2)}
    for file, names in parts.items():
        write_tensors(folder / file, {name: tensors[name] for name in names}, about={})
    listed = {name: file for file, names in parts.items() for name in names}
    if index:
        change(folder / f"{WEIGHTS}.index.json", weight_map=listed, metadata={"total_size": 1})
    return [*parts]


def adapter(folder, **tensors):
    made = {f"base_model.model.{LAYER}.lora_A.weight": torch.ones(2, 32)}
    made |= {f"base_model.model.{LAYER}.lora_B.weight": torch.ones(32, 2)}
    made = {name: tensors.get(name.split(".")[-2], value) for name, value in made.items()}
    write_tensors(folder / "adapter_model.safetensors", made, about={})
    change(
        folder / "adapter_config.json",
        peft_type="LORA", r=2, lora_alpha=8, base_model_name_or_path="meta-llama/Llama-3.2-1B",
        target_modules=["layers.0.self_attn.q_proj"],
    )  # fmt: skip


def only(folder, **files):
    """Leave these files alone in the folder."""
    for path in folder.iterdir():
        path.unlink()
    for name, content in files.items():
        (folder / name.replace("__", ".")).write_bytes(content)


def truncate(path, keep):
    path.write_bytes(path.read_bytes()[: int(keep * path.stat().st_size)])


def unfinished(folder):
    (folder / WEIGHTS).unlink()
    download = folder / ".cache/huggingface/download"
    download.mkdir(parents=True)
    (download / "abc.incomplete").write_bytes(b"{")


def dangling(folder):
    (folder / WEIGHTS).unlink()
    (folder / WEIGHTS).symlink_to("../blobs/123")


def as_kind(folder, dtype):
    rewrite(folder, lambda tensors: {n: v.to(getattr(torch, dtype)) for n, v in tensors.items()})


def lone_adapter(folder):
    adapter(folder)
    for name in ("config.json", WEIGHTS):
        (folder / name).unlink()


def nan(value):
    value[1, 2] = float("nan")
    return value


def inf(value):
    value[0] = float("inf")
    return value


def json_text(path, text):
    path.write_text(text, "utf-8")


def with_nan_adapter(folder):
    name = f"base_model.model.{LAYER}.lora_A.weight"
    file = "adapter_model.safetensors"
    rewrite(folder, lambda tensors: tensors | {name: nan(tensors[name])}, file)


def add_token(folder):
    """What `add_tokens` and `save_pretrained` do, without `resize_token_embeddings`."""
    data = json.loads((folder / "tokenizer.json").read_text("utf-8"))
    token = data["added_tokens"][0]
    size = len(data["model"]["vocab"])
    data["added_tokens"].append(token | {"id": size, "content": "<NEW>"})
    (folder / "tokenizer.json").write_text(json.dumps(data), "utf-8")


def no_end(folder):
    for name in ("config.json", "generation_config.json"):
        change(folder / name, eos_token_id=50256)
    data = json.loads((folder / "tokenizer_config.json").read_text("utf-8"))
    data.pop("eos_token")
    (folder / "tokenizer_config.json").write_text(json.dumps(data), "utf-8")


def silent(folder):
    """A post-processor whose template leaves the text out."""
    rule = {"type": "TemplateProcessing", "single": [], "pair": [], "special_tokens": {}}
    change(folder / "tokenizer.json", post_processor=rule)


def odd_map(folder):
    shards(folder)
    change(folder / f"{WEIGHTS}.index.json", weight_map={HEAD: 3})


def tie(folder, keep):
    change(folder / "config.json", tie_word_embeddings=True)
    one, other = HEAD, "model.embed_tokens.weight"
    names = {"both": {one, other}, "head": {one}, "embeddings": {other}}[keep]
    rewrite(
        folder,
        lambda t: (
            {n: t[other] for n in names} | {n: v for n, v in t.items() if n not in (one, other)}
        ),
    )


FAULTS = {
    # placeholders, partial downloads, what is not the file
    "lfs weights": (lambda f: json_text(f / WEIGHTS, POINTER), "a Git LFS placeholder; .*git lfs"),
    "lfs tokenizer": (lambda f: json_text(f / "tokenizer.json", POINTER), "tokenizer.json: a Git"),
    "lfs config": (lambda f: json_text(f / "config.json", POINTER), "config.json: a Git LFS"),
    "lfs vocabulary": (
        lambda f: json_text(f / "tokenizer.model", POINTER), "tokenizer.model: a Git LFS"
    ),
    "web page": (lambda f: json_text(f / WEIGHTS, "<!DOCTYPE html>"), "a web page; download"),
    "cut": (lambda f: truncate(f / WEIGHTS, 0.6), "not downloaded or copied to its end"),
    "cut in the header": (lambda f: truncate(f / WEIGHTS, 0.01), "not a safetensors file"),
    "unfinished": (unfinished, "abc.incomplete is a download that was not finished"),
    "dangling": (dangling, "a link to .*123, which is not there"),
    "config cut": (lambda f: truncate(f / "config.json", 0.5), "config.json: not JSON"),
    "tokenizer cut": (lambda f: truncate(f / "tokenizer.json", 0.5), "tokenizer.json: not JSON"),
    # a tokenizer that cannot be used
    "tokenizer length": (
        lambda f: change(f / "tokenizer_config.json", model_max_length=""),
        "the model's tokenizer cannot read",
    ),
    "template cut": (
        lambda f: json_text(f / "chat_template.jinja", "{% for each in messages %}\n{% end"),
        "chat template cannot be read: line 2",
    ),
    "padding beyond": (
        lambda f: change(f / "config.json", pad_token_id=9999),
        "pad_token_id is 9999, but vocab_size is 2",
    ),
    # other formats
    "gguf": (lambda f: only(f, m__gguf=b"GGUF"), "m.gguf is a GGUF file of llama.cpp"),
    "gguf renamed": (lambda f: (f / WEIGHTS).write_bytes(b"GGUF" * 9), "but a GGUF file"),
    "onnx": (lambda f: only(f, m__onnx=b"x"), "m.onnx is a model exported to ONNX"),
    "pickle": (
        lambda f: (f / WEIGHTS).rename(f / "pytorch_model.bin"),
        "never read; .*save_pretrained",
    ),
    "zip": (lambda f: (f / WEIGHTS).write_bytes(b"PK\x03\x04" * 9), "but a pickle of PyTorch"),
    "lone adapter": (lone_adapter, "without its base model, meta-llama/Llama-3.2-1B; put the base"),
    "folder above": (lambda f: (f / "config.json").rename(f.parent / "x"), "no config.json; give"),
    # shards
    "no index": (lambda f: shards(f, index=False), "one part of several without their index"),
    "odd index": (odd_map, "no weight_map of tensors to files"),
    "no shard": (lambda f: (f / shards(f)[1]).unlink(), "no model-00002-of-00002.safetensors"),
    "other shard": (
        lambda f: shutil.copyfile(*(f / name for name in shards(f))),
        "should be in model-00002-of-00002.safetensors, but is not",
    ),
    # tensors that are not the architecture's
    "module": (lambda f: renamed(f, lambda n: f"module.{n}"), "names of a wrapper .*--unwrap"),
    "fsdp": (
        lambda f: renamed(f, lambda n: n.replace("self_attn", "_fsdp_wrapped_module.self_attn")),
        "names of a wrapper",
    ),
    "peft": (lambda f: renamed(f, lambda n: f"base_model.model.{n}"), "names of a wrapper"),
    "not merged": (
        lambda f: renamed(f, lambda n: n.replace("q_proj", "q_proj.base_layer")),
        r"an adapter's tensors among the model's .*; save the model after merge_and_unload",
    ),
    "one missing": (
        lambda f: rewrite(f, lambda t: {n: v for n, v in t.items() if "k_proj" not in n}),
        "not in them: model.layers.0.self_attn.k_proj.weight",
    ),
    "one left over": (
        lambda f: rewrite(f, lambda t: t | {"model.layers.2.mlp.up_proj.weight": t[HEAD]}),
        "1 in the files that it does not have: model.layers.2.mlp.up_proj.weight",
    ),
    "one renamed": (
        lambda f: renamed(f, lambda n: n.replace("up_proj", "up_projection")),
        "not in the files: model.layers.0.mlp.up_proj.weight",
    ),
    "transposed": (
        lambda f: with_tensor(f, "model.layers.0.mlp.up_proj.weight", lambda v: v.T),
        r"of another shape: .*up_proj.weight \(is \(32, 64\), must be \(64, 32\)\)",
    ),
    "other size": (lambda f: change(f / "config.json", hidden_size=64), "but the files hold"),
    "other depth": (lambda f: change(f / "config.json", num_hidden_layers=3), "layers.2"),
    "absurd depth": (lambda f: change(f / "config.json", num_hidden_layers=10**9), "tensors"),
    "absurd size": (lambda f: change(f / "config.json", vocab_size=10**12), "base|hold"),
    "unknown": (lambda f: change(f / "config.json", model_type="llamas"), "cannot read the base"),
    "incomplete": (lambda f: json_text(f / "config.json", '{"model_type": "llama"}'), "causal"),
    "nan": (lambda f: with_tensor(f, f"{LAYER}.weight", nan), "damaged: .*q_proj.weight holds NaN"),
    "inf": (lambda f: with_tensor(f, HEAD, inf), "damaged: lm_head.weight holds NaN or infinite"),
    "fp8": (lambda f: as_kind(f, "float8_e4m3fn"), "quantised .*F8_E4M3"),
    # an adapter that is not the base's
    "adapter of another base": (
        lambda f: adapter(f, lora_A=torch.ones(2, 31)),
        "adapter_model.safetensors does not fit",
    ),
    "damaged adapter": (
        lambda f: adapter(f) or with_nan_adapter(f), "the weights are damaged: .*lora_A"
    ),
    # the context
    "no such position": (
        lambda f: change(f / "config.json", max_position_embeddings=-1), "does not read one|context"
    ),
    # the tokenizer
    "special token": (add_token, r"the tokenizer has \d+ tokens, but the model has \d+ emb"),
    "no end": (no_end, "no text would end"),
    "no tokens": (silent, "makes no tokens of .*, which it wrote itself"),
}  # fmt: skip
