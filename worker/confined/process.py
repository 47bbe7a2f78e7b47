"""The process that a program of strangers runs in: one JSON line each way.

    python -I process.py PROGRAM MEMORY_BYTES

A line holds the seconds of the processor that its answer may take, and the request. The kernel ends
the process where an answer takes more, and refuses it more memory. It is run by its path, and
imports nothing of Genmill.
"""

import importlib.util
import json
import resource
import signal
import sys
from collections.abc import Callable
from typing import Any

Answer = Callable[[Any], dict[str, Any]]


def load(program: str) -> Answer:
    """The function `answer` of a program."""
    spec = importlib.util.spec_from_file_location("program", program)
    if spec is None or spec.loader is None:
        raise ImportError(program)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    found: Answer = module.answer
    return found


def main(program: str, memory_bytes: int) -> None:
    """Answer requests until the input ends."""
    resource.setrlimit(resource.RLIMIT_AS, (memory_bytes, memory_bytes))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    answer = load(program)
    for line in sys.stdin:
        cpu_s, request = json.loads(line)
        signal.setitimer(signal.ITIMER_PROF, cpu_s)  # without a handler, it ends the process
        try:
            reply = answer(request)
        except MemoryError:
            reply = {"limit": "it takes too much memory"}
        signal.setitimer(signal.ITIMER_PROF, 0)
        sys.stdout.write(json.dumps(reply) + "\n")
        sys.stdout.flush()


if __name__ == "__main__":
    main(sys.argv[1], int(sys.argv[2]))
