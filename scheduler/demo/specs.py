"""The jobs of the demo, chosen to finish in minutes on two CPU cores."""

from typing import Any

GAN = {
    "kind": "train",
    "family": "gan",
    "model": "digits",
    "dataset": "digits",
    "max_seconds": 150,
    "seed": 0,
}
VAE = {
    "kind": "train",
    "family": "vae",
    "model": "vae",
    "dataset": "digits",
    "max_seconds": 45,
    "seed": 0,
}
GPT = {
    "kind": "train",
    "family": "gpt",
    "model": "prose",
    "dataset": "documentation",
    "max_seconds": 90,
    "seed": 0,
    # a large vocabulary of long tokens, so that it writes words after a minute
    "params": {
        "tokenizer": "bpe",
        "vocabulary": 4096,
        "context": 64,
        "batch_size": 12,
        "lr": 0.008,
    },
}
TRAINING: dict[str, dict[str, Any]] = {"gan": GAN, "gpt": GPT, "vae": VAE}

SPLIT = (75, 5, 20)  # of the digits, in percent: the samples are compared with the last part
COUNT = 350  # samples of an evaluation: about as many as there are held-out digits
EVALUATION = {
    "kind": "evaluate",
    "model": "digits",
    "dataset": "digits",
    "count": COUNT,
    "against": "digits@champion",
}
PROMOTION = {"kind": "promote", "model": "digits"}

# by the name of the training that they follow, one after the other
THEN: dict[str, tuple[dict[str, Any], ...]] = {"gan": (EVALUATION, PROMOTION)}

PROMPTS = ("The ", "If the ", "An object ", "A class ", "Note that ")

# by the name of the folder that the samples are downloaded into
GENERATION: dict[str, dict[str, Any]] = {
    "digits": {"kind": "generate", "model": "digits", "count": 1000, "seed": 1},
    "vae-digits": {"kind": "generate", "model": "vae", "count": 200, "seed": 1},
    "texts": {
        "kind": "generate",
        "model": "prose",
        "count": 50,
        "seed": 1,
        "prompts": [{"prompt": prompt} for prompt in PROMPTS],
        "params": {"max_tokens": 80, "temperature": 0.7, "top_p": 0.9},
    },
}

SCHEDULE = "retrain-digits"
RETRAIN = (
    *("enqueue", "finetune", "digits", "--dataset", "digits", "--max-seconds", "15"),
    *("--evaluate", "--evaluate-count", str(COUNT), "--promote"),
)
