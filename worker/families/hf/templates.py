"""Chat templates, rendered in a confined process: one may loop for ever or fill the memory."""

import atexit
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from db.causes import Cause
from db.errors import BadInput
from worker.confined import Confined, TooMuch
from worker.conversations import Message

PROGRAM = Path(__file__).with_name("template_process.py")
CPU_S = 5.0  # of one rendering
MEMORY_BYTES = 512 * 2**20  # of the process


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

    def __init__(self, *, cpu_s: float = CPU_S) -> None:
        self._process = Confined(PROGRAM, cpu_s=cpu_s, memory_bytes=MEMORY_BYTES)

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
        try:
            reply = self._process.ask(request)
        except TooMuch as limit:
            raise TemplateLimit(
                f"the model's chat template was stopped: {limit}",
                remedy="the model may be hostile: use it only if you trust it, without its "
                "template",
            ) from None
        if "text" in reply:
            return str(reply["text"])
        raise (TemplateSyntax if reply["kind"] == "syntax" else TemplateError)(reply["error"])

    def close(self) -> None:
        """End the process; the next rendering starts another."""
        self._process.close()


renderer = Renderer()  # of this process
atexit.register(renderer.close)
