"""The device that numbers are computed on, and their precision."""

from contextlib import AbstractContextManager, nullcontext

import torch

from db.errors import Refused


def pick_device(name: str) -> torch.device:
    """The device called `name`: `auto` (a GPU if there is one), `cpu`, `cuda` or `cuda:N`.

    Raises `Refused` if this machine does not have the GPU.
    """
    count = torch.cuda.device_count() if torch.cuda.is_available() else 0
    if name == "auto":
        return torch.device("cuda" if count else "cpu")
    device = torch.device(name)
    if device.type == "cuda" and (device.index or 0) >= count:
        raise Refused(
            f"no device {name!r}: PyTorch sees {count} GPUs on this machine",
            remedy="set GENMILL_DEVICE to auto or cpu",
        )
    return device


def autocast(device: torch.device, precision: str) -> AbstractContextManager[object]:
    """Compute in `precision`: `fp32`, or `bf16` where PyTorch deems it safe. Weights stay fp32."""
    if precision == "fp32":
        return nullcontext()
    return torch.autocast(device.type, dtype=torch.bfloat16)


def deterministic() -> None:
    """Make PyTorch always choose the same kernels in this process.

    Training and sampling both call it first: earlier work of the process must not affect a sample.
    """
    torch.backends.cudnn.benchmark = False
    torch.backends.cudnn.deterministic = True
    torch.backends.cuda.matmul.allow_tf32 = False
    torch.backends.cudnn.allow_tf32 = False
    # denormal numbers in Adam's averages would make a CPU's multiplications a hundred times slower
    torch.set_flush_denormal(True)
