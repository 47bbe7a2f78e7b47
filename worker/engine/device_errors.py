"""The causes of torch's and CUDA's errors, which only their texts tell apart.

Importing this module has `db.causes.cause_of` know them.
"""

import torch

from db.causes import Cause, cause_of

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
