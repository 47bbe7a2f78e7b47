"""The causes of torch's and CUDA's errors, which only their texts tell apart.

Importing this module has `db.causes.cause_of` know them.
"""

import torch

from db.causes import Cause, cause_of
from db.errors import raise_outage

# of memory; torch has a class only for that of a GPU
_MEMORY = ("can't allocate memory", "not enough memory", "_STATUS_ALLOC_FAILED", "out of memory")
_DEVICE = (
    *("uncorrectable ECC", "busy or unavailable", "no CUDA-capable device", "initialization error"),
    *("invalid device ordinal", "driver version is insufficient", "fallen off the bus"),
    *("can't start new thread", "Cannot allocate memory"),
)


@cause_of.register
def _(error: RuntimeError) -> Cause:
    if isinstance(error, torch.OutOfMemoryError):
        return Cause.MACHINE
    told = any(words in str(error) for words in (*_MEMORY, *_DEVICE))
    return Cause.MACHINE if told else Cause.UNKNOWN


def raise_of_device(error: BaseException) -> None:
    """Re-raise an error of memory or of a device, which says nothing of what was being loaded.

    `load_state_dict` gathers all errors into one, and keeps no more than their texts.
    """
    raise_outage(error)
    if isinstance(error, torch.AcceleratorError):
        raise error
    if "CUDA error" in str(error):
        raise torch.AcceleratorError(str(error)) from error
