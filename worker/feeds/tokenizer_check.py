"""Whether a stranger's `tokenizer.json` reads any text within limits of time and memory."""

import atexit
from pathlib import Path

from db.errors import BadInput
from worker.confined import Confined, TooMuch

PROGRAM = Path(__file__).with_name("tokenizer_process.py")
CPU_S = 5.0
BYTES_A_SECOND = 2**20  # of a large file, which takes longer to read
MEMORY_BYTES = 2 * 2**30  # one of 256,000 tokens takes half of it

_process = Confined(PROGRAM, cpu_s=CPU_S, memory_bytes=MEMORY_BYTES)
atexit.register(_process.close)


def check_expressions(path: Path) -> None:
    """Raise `BadInput` if a tokenizer's regular expressions take too much on some text."""
    cpu_s = CPU_S + path.stat().st_size / BYTES_A_SECOND
    try:
        fault = _process.ask({"path": str(path.absolute())}, cpu_s=cpu_s).get("error")
    except TooMuch as limit:
        fault = str(limit)
    if fault is not None:
        raise BadInput(
            f"{path.name}: a regular expression takes too much: {fault}",
            remedy="the model may be hostile: use it only if you trust it, with a tokenizer whose "
            "expressions do not nest repetitions",
        )
