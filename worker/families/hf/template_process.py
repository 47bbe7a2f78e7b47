"""Renders chat templates, which are programs of strangers, in a process of `worker.confined`.

It has the standard library and Jinja alone. Jinja's sandbox keeps a template from files and from
Python. Templates see what `apply_chat_template` of transformers shows them; a test compares the
two.
"""

import json
from collections.abc import Callable, Mapping
from datetime import datetime
from functools import lru_cache
from typing import Any

from jinja2 import Template, TemplateError, TemplateSyntaxError, nodes
from jinja2.exceptions import SecurityError
from jinja2.ext import Extension, loopcontrols
from jinja2.parser import Parser
from jinja2.sandbox import ImmutableSandboxedEnvironment
from jinja2.utils import Namespace

REASONING = ("reasoning_content", "thinking", "reasoning")  # names of an answer's thoughts
COMPILED = 8  # templates that are kept
TEXT_LENGTH = 16 * 2**20  # characters of one conversation


class Generation(Extension):
    """The block `generation`, which marks what an assistant says: rendered as it is."""

    tags = {"generation"}  # noqa: RUF012 - as Jinja declares it

    def parse(self, parser: Parser) -> nodes.Node:
        """Parse a block that renders its body."""
        line = next(parser.stream).lineno
        body = parser.parse_statements(("name:endgeneration",), drop_needle=True)
        return nodes.CallBlock(self.call_method("_body"), [], [], body).set_lineno(line)

    def _body(self, caller: Callable[[], str]) -> str:
        return caller()


class Names(Namespace):
    """`namespace(...)` without names of Python's internals."""

    def __init__(*args: Any, **kwargs: Any) -> None:  # `self` may be a name too
        self, *given = args
        names = dict(*given, **kwargs)
        for name in names:
            _refuse_private(name)
        Namespace.__init__(self, names)

    def __setitem__(self, name: str, value: Any) -> None:
        _refuse_private(name)
        super().__setitem__(name, value)


def render(request: Mapping[str, Any]) -> str:
    """The text that a request asks for. Raises whatever the template does."""
    messages = [_with_reasoning(each) for each in request["messages"]]
    return compiled(request["template"]).render(
        **request["tokens"],
        messages=messages,
        tools=request["tools"],
        documents=None,
        add_generation_prompt=request["begin"],
    )


@lru_cache(COMPILED)
def compiled(template: str) -> Template:
    """A template, as a program."""
    environment = ImmutableSandboxedEnvironment(
        trim_blocks=True, lstrip_blocks=True, extensions=[Generation, loopcontrols]
    )
    environment.filters["tojson"] = _to_json
    environment.globals |= {
        "raise_exception": _raise,
        "strftime_now": lambda form: datetime.now().strftime(form),
        "dict": _dict,
        "namespace": Names,
    }
    return environment.from_string(template)


def answer(request: Mapping[str, Any]) -> dict[str, Any]:
    """The text, or the kind of an error and what it says."""
    try:
        text = render(request)
    except TemplateSyntaxError as error:
        return {"error": f"line {error.lineno}: {error.message}", "kind": "syntax"}
    except MemoryError:
        raise
    except Exception as error:
        return {"error": " ".join(str(error).split())[:300], "kind": "template"}
    if len(text) > TEXT_LENGTH:
        return {"limit": f"it makes a text of {len(text):,} characters"}
    return {"text": text}


def _with_reasoning(message: dict[str, Any]) -> dict[str, Any]:
    """A message without empty fields, with its thoughts under each name that templates read."""
    plain = {key: value for key, value in message.items() if value is not None}
    thoughts = next((plain[key] for key in REASONING if key in plain), None)
    if thoughts is None:
        return plain
    return {"thinking": thoughts, **plain, "reasoning_content": thoughts}


def _to_json(
    value: Any,
    ensure_ascii: bool = False,
    indent: int | None = None,
    separators: tuple[str, str] | None = None,
    sort_keys: bool = False,
) -> str:
    return json.dumps(
        value,
        ensure_ascii=ensure_ascii,
        indent=indent,
        separators=separators,
        sort_keys=sort_keys,
    )


def _dict(*args: Any, **kwargs: Any) -> dict[Any, Any]:
    return dict(*args, **kwargs)  # a function, because classes have attributes


def _raise(message: str) -> None:
    raise TemplateError(message)


def _refuse_private(name: object) -> None:
    if isinstance(name, str) and name.startswith("_"):
        raise SecurityError(f"a namespace takes no name that begins with _, but got {name!r}")
