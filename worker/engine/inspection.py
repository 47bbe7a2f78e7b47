"""Trying a model that is being imported: its weights fit, are finite, and can do the work."""

from pathlib import Path

import torch

from db.errors import BadInput, GenmillError, NonFinite, contained, raise_outage
from worker.engine.tensors import require_finite
from worker.engine.weights import load
from worker.feeds.tokenizer import FILE
from worker.feeds.tokenizer_check import check_expressions
from worker.networks.inspection import Inspection


def inspect(folder: Path) -> Inspection:
    """Load a version's folder and try it; `BadInput` where it is not usable."""
    try:
        if (folder / FILE).is_file():
            check_expressions(folder / FILE)
        _, network = load(folder, device=torch.device("cpu"))
        for name, tensor in network.state_dict().items():
            require_finite(name, tensor)
        return network.inspect()
    except NonFinite as error:
        raise BadInput(f"the weights are damaged: {error}") from None
    except GenmillError:
        raise
    except BaseException as error:  # of a stranger's files; Rust's panics are no `Exception`
        raise_outage(error)
        kind = type(contained(error)).__name__
        complaint = " ".join(str(error).split())[:300]
        raise BadInput(f"the model cannot be used: {kind}: {complaint}") from error
