"""Keeping a small model of each family, and making its samples again.

    python -m tests.kept_models.keeping

writes the folders that are missing: after a family was added, or its format got a new number. Run
it with the code whose models are to be kept, in a checkout of its commit, and commit the folders.
"""

import base64
import hashlib
import json
import platform
import shutil
import sys
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
import torch

from tests.families.causal import add_record, gpt2, write_base
from tests.families.kit import (
    SENTENCES,
    Recorder,
    dataset_for,
    image_dataset,
    small_sampling,
    train_small,
)
from worker.engine.generate import Generation, generate
from worker.engine.weights import load
from worker.families import find_family
from worker.networks.family import Family
from worker.networks.network import Network
from worker.specs import Prompt, parse_params

FOLDER = Path(__file__).parent
SAMPLES = "samples.json"
COUNT, SEED, STEPS = 8, 5, 4
PROMPTS = {"text": ["The ", "The cat sees"], "image": ["a disc", "an upright bar"]}
# a family, and parameters beside those that make it tiny
CASES: dict[str, tuple[str, dict[str, Any]]] = {
    "gan": ("gan", {}),
    "gpt": ("gpt", {}),
    "hf": ("hf", {"rank": 2, "alpha": 4}),
    "hmm": ("hmm", {"states": 3}),
    "rnn": ("rnn", {}),
    "rnn-gru": ("rnn", {"cell": "gru"}),
    "text2image": ("text2image", {}),
    "vae": ("vae", {}),
    "vae-mlp": ("vae", {"arch": "mlp"}),
    "wavenet": ("wavenet", {}),
}
TINY = {
    "channels": 4, "latent": 2, "hidden": 8, "width": 8, "embedding": 8, "heads": 2, "skip": 4,
    "batch_size": 8,
}  # fmt: skip
IMAGE_SIZE = 12


def machine() -> dict[str, str]:
    """What bytes may depend on besides our own code: the processor, and those who compute."""
    return {
        "processor": _processor(),
        "instructions": torch.backends.cpu.get_cpu_capability(),
        **{name: _installed(name) for name in ("torch", "numpy", "transformers")},
    }


def make_samples(family: Family, network: Network, sampling: dict[str, Any]) -> list[bytes]:
    """The samples of a kept model as bytes: texts, pixels, or sounds as 16-bit samples."""
    settings = parse_params(family.sampling, sampling, what="kept sampling settings")
    texts = PROMPTS[family.media] if family.takes_prompts else []
    prompts = tuple(Prompt(prompt=text) for text in texts)
    asked = Generation(network, settings, SEED, 0, COUNT, prompts=prompts)
    return [_plain(sample.output) for sample in generate(asked, Recorder())]


def keep(case: str, folder: Path) -> None:
    """Train the model of a case and write its version and samples into `folder`."""
    family = find_family(CASES[case][0])
    with TemporaryDirectory() as scratch:
        shutil.copytree(_train(family, CASES[case][1], Path(scratch)), folder)
    _, network = load(folder, device=torch.device("cpu"))
    sampling = small_sampling(family).model_dump(mode="json")
    samples = make_samples(family, network, sampling)
    kept = {
        "machine": machine(),
        "sampling": sampling,
        "sha256": [hashlib.sha256(each).hexdigest() for each in samples],
        "samples": [base64.b64encode(each).decode() for each in samples],
    }
    (folder / SAMPLES).write_text(json.dumps(kept, indent=1) + "\n", "utf-8")


def folder_of(case: str, number: int) -> Path:
    """Where the model of a case in a format is kept."""
    return FOLDER / f"{case}-{number}"


def _train(family: Family, params: dict[str, Any], scratch: Path) -> Path:
    if family.media == "image":
        dataset = image_dataset(
            scratch / "dataset", size=IMAGE_SIZE, captioned=family.takes_prompts
        )
    else:
        dataset = dataset_for(family, scratch / "dataset")
    given: dict[str, Any] = {}
    if not family.trains:
        base = write_base(
            scratch / "base", SENTENCES, kind=lambda size: gpt2(size, width=8), vocabulary=48
        )
        given["parent"] = add_record(base)
    tiny = {name: value for name, value in TINY.items() if name in family.params.model_fields}
    made = train_small(
        family, dataset, scratch / "run", params=tiny | params, max_steps=STEPS, seed=1, **given
    )
    return made.folder


def _plain(output: Any) -> bytes:
    if isinstance(output, str):
        return output.encode()
    if output.dtype == np.float32:
        return bytes(np.rint(output * 32767).astype("<i2").tobytes())
    return bytes(output.tobytes())


def _installed(name: str) -> str:
    try:
        return version(name)
    except PackageNotFoundError:
        return ""


def _processor() -> str:
    info = Path("/proc/cpuinfo")
    lines = info.read_text("utf-8", "replace").splitlines() if info.exists() else []
    names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return f"{platform.machine()} {names[0] if names else platform.processor()}".strip()


def main() -> None:
    """Keep the models that are missing."""
    torch.set_num_threads(1)
    for case, (name, _) in CASES.items():
        # code of before there were numbers writes format 1
        folder = folder_of(case, getattr(find_family(name), "format", 1))
        if folder.exists():
            continue
        keep(case, folder)
        print(folder.name, sum(path.stat().st_size for path in folder.iterdir()), file=sys.stderr)


if __name__ == "__main__":
    main()
