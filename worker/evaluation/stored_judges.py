"""Reading judges, of both forms, from their files."""

from pathlib import Path
from typing import Any

import torch

from db.errors import NotSupportedHere
from worker.engine.tensors import read_tensors
from worker.evaluation.judge import Judge, JudgeNetwork


def load(path: Path, device: torch.device) -> Judge:
    """Read what `save` of `judge` or of `pretrained` wrote.

    Raises `BadInput` where the file is damaged, and `NotSupportedHere` for a judge of another form
    than this Genmill builds.
    """
    tensors, about = read_tensors(path)
    try:
        network = _of_form(about["form"])
        network.load_state_dict(tensors)
    except (LookupError, TypeError, ValueError, RuntimeError) as error:
        complaint = " ".join(str(error).split())[:300]
        raise NotSupportedHere(
            f"another genmill trained the judge, and it does not fit here: {complaint}",
            remedy="use that one, or add the dataset again to have a new judge",
        ) from error
    return network.to(device).eval()


def _of_form(form: Any) -> Judge:
    if isinstance(form, dict):
        from worker.evaluation import pretrained  # noqa: PLC0415 - loads transformers

        return pretrained.of_form(form)
    return JudgeNetwork(*form)
