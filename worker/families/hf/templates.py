"""Chat templates, rendered in a process of their own that ends where one takes too much.

A template is a program that comes with a model: it may loop for ever or fill the memory. The
process is started when the first template is rendered, and anew after one that was too much.
"""

import atexit
import json
import select
import subprocess
import sys
import threading
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from db.errors import BadInput, Cause
from worker.conversations import Message

PROGRAM = Path(__file__).with_name("template_process.py")
CPU_S = 5.0  # of one rendering
WALL_S = 120.0  # the same on a machine that is very busy
MEMORY_BYTES = 512 * 2**20  # of the process
TEXT_LENGTH = 16 * 2**20  # characters of one conversation
TOO_MUCH = "the model may be hostile: use it only if you trust it, without its template"


class TemplateError(BadInput):
    """The chat template cannot render this conversation."""

    cause = Cause.WORK
    lasting = True


class TemplateSyntax(TemplateError):
    """The chat template cannot be read."""

    cause = Cause.WORK
    lasting = True


class TemplateLimit(BadInput):
    """The chat template takes too much time or memory."""

    cause = Cause.WORK
    lasting = True


class Renderer:
    """Renders templates, one at a time; threads take turns."""

    def __init__(self, *, cpu_s: float = CPU_S, wall_s: float = WALL_S) -> None:
        self._cpu_s, self._wall_s = cpu_s, wall_s
        self._lock = threading.Lock()
        self._process: subprocess.Popen[str] | None = None

    def render(
        self,
        template: str,
        messages: Sequence[Message],
        tools: Sequence[Any],
        *,
        tokens: Mapping[str, Any],
        begin: bool,
    ) -> str:
        """A conversation as text; `begin` if an answer follows.

        Raises `TemplateSyntax` for what is no template, `TemplateError` where it refuses the
        conversation, and `TemplateLimit` where it takes too much.
        """
        request = {
            "template": template,
            "messages": list(messages),
            "tools": list(tools) or None,
            "tokens": dict(tokens),
            "begin": begin,
        }
        with self._lock:
            reply = self._ask(json.dumps(request, default=str))
        if "text" in reply:
            return str(reply["text"])
        if reply["kind"] == "limit":
            raise TemplateLimit(
                f"the model's chat template was stopped: {reply['error']}", remedy=TOO_MUCH
            )
        raise (TemplateSyntax if reply["kind"] == "syntax" else TemplateError)(reply["error"])

    def close(self) -> None:
        """End the process; the next rendering starts another."""
        if self._process is not None:
            self._process.kill()
            self._process.communicate()
            self._process = None

    def _ask(self, line: str) -> dict[str, Any]:
        process = self._process = self._process or self._start()
        assert process.stdin is not None  # noqa: S101 - for mypy: both are pipes
        assert process.stdout is not None  # noqa: S101 - as above
        answered = ""
        try:
            process.stdin.write(line + "\n")
            process.stdin.flush()
            if select.select([process.stdout], [], [], self._wall_s)[0]:
                answered = process.stdout.readline()
        except BrokenPipeError:  # it ended
            pass
        if answered.endswith("\n"):
            found: dict[str, Any] = json.loads(answered)
            return found
        self.close()
        return {"kind": "limit", "error": f"it takes more than {self._cpu_s:g} s, or crashes"}

    def _start(self) -> subprocess.Popen[str]:
        limits = (str(self._cpu_s), str(MEMORY_BYTES), str(TEXT_LENGTH))
        return subprocess.Popen(  # noqa: S603 - our own program, no shell
            [sys.executable, "-I", str(PROGRAM), *limits],
            env={},  # it holds passwords
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            encoding="utf-8",
            start_new_session=True,  # Ctrl-C is for the process that asks
        )


renderer = Renderer()  # of this process
atexit.register(renderer.close)
