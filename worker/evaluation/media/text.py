"""The numbers of a version that makes texts: how it predicts real ones, and what it writes."""

import hashlib
from pathlib import Path

import numpy as np

from worker.evaluation import samples
from worker.evaluation.asking import PROMPTS
from worker.evaluation.exhibits import text_exhibits
from worker.evaluation.held_out import held_out_losses
from worker.evaluation.numbers import Numbers
from worker.evaluation.request import Measured, Request
from worker.evaluation.samples import Asked
from worker.evaluation.stages import Stage
from worker.evaluation.text_numbers import (
    add_diversity,
    add_languages,
    add_likeness,
    add_losses,
    add_notes,
)
from worker.evaluation.writings import read_references, read_writings
from worker.specs import Prompt

TOKENIZER = "tokenizer.json"


def measure(request: Request, stage: Stage) -> Measured:
    """Predict held-out texts, write texts, and compare these with held-out ones."""
    numbers = Numbers()
    losses = held_out_losses(request, stage.part("predicting held-out texts", 0, 0.4))
    arrays = add_losses(numbers, losses) | {"tokenizer_sha256": _tokenizer_digest(request.files)}
    references = read_references(request) if request.protocol.asked == PROMPTS else []
    asked = Asked(prompts=tuple(Prompt(prompt=prompt) for prompt, _ in references))
    made = [
        str(each) for each in samples.make(request, asked, stage.part("writing texts", 0.4, 0.9))
    ]
    writings = read_writings(request, made, [answer for _, answer in references])
    for add in (add_diversity, add_likeness, add_notes, add_languages):
        arrays |= add(numbers, writings)
    stage.tick(1, 1)
    return Measured(numbers, arrays, text_exhibits(writings, [prompt for prompt, _ in references]))


def _tokenizer_digest(files: Path) -> samples.Array:
    """The SHA-256 of a version's tokenizer as bytes; that of nothing if it has none."""
    path = files / TOKENIZER
    content = path.read_bytes() if path.is_file() else b""
    return np.frombuffer(hashlib.sha256(content).digest(), np.uint8)
