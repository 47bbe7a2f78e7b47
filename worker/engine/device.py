"""Where numbers are computed, and with what precision."""

from contextlib import AbstractContextManager, nullcontext

import torch

from db.errors import Refused


def pick_device(name: str) -> torch.device:
    """The device called `name`: `auto` (a GPU where there is one), `cpu`, `cuda` or `cuda:N`.

    Raises `Refused` where a GPU is asked for that this machine does not have.
    """
    count = torch.cuda.device_count() if torch.cuda.is_available() else 0
    if name == "auto":
        return torch.device("cuda" if count else "cpu")
    device = torch.device(name)
    if device.type == "cuda" and (device.index or 0) >= count:
        raise Refused(
            f"device {name!r} is not here: PyTorch sees {count} GPUs on this machine; "
            "set GENMILL_DEVICE to auto or cpu"
        )
    return device


def autocast(device: torch.device, precision: str) -> AbstractContextManager[object]:
    """Compute in `precision`: `fp32`, or `bf16` where PyTorch holds it safe. Weights stay fp32."""
    if precision == "fp32":
        return nullcontext()
    return torch.autocast(device.type, dtype=torch.bfloat16)


def deterministic() -> None:
    """Make PyTorch choose the same kernels each time, for all the work of this process.

    Training and sampling both begin with it: what a process did before must not show in a sample.
    """
    torch.backends.cudnn.benchmark = False
    torch.backends.cudnn.deterministic = True
    torch.backends.cuda.matmul.allow_tf32 = False
    torch.backends.cudnn.allow_tf32 = False
    # tiny numbers in Adam's averages cost a CPU a hundred times an ordinary multiplication
    torch.set_flush_denormal(True)
