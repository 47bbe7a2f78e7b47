"""Tries a tokenizer, whose regular expressions are a stranger's, in a process of `worker.confined`.

Backtracking takes for ever on texts that an expression nearly matches, so the texts that are tried
are long runs: of the letters of an expression, of usual characters, and of each in the expressions.
They end with what most expressions do not match, and with what an expression may insist on.
"""

import json
from collections.abc import Iterator
from itertools import combinations
from pathlib import Path
from typing import Any

from tokenizers import Tokenizer

USUAL = "aA0 \n_.é中"
RUN = 2_000  # characters of a text
MAX_RUNS = 100
LETTERS = 8  # of an expression, that are tried in pairs
ODD_END = "!\x00"  # what most expressions do not match


def answer(request: dict[str, Any]) -> dict[str, Any]:
    """`{}`, or the first `error` of an expression that gives up on a text."""
    path = request["path"]
    try:
        tokenizer = Tokenizer.from_file(path)
    except MemoryError:
        raise
    except BaseException:  # the library raises bare exceptions, and panics; whoever reads it tells
        return {}
    for text in texts([*expressions(json.loads(Path(path).read_text("utf-8")))]):
        try:
            tokenizer.decode(tokenizer.encode(text).ids)
        except BaseException as error:  # a panic is none
            if isinstance(error, MemoryError):
                raise
            if not isinstance(error, Exception):  # which tells of text outside the vocabulary
                return {"error": f"{' '.join(str(error).split())[:200]} (at {text[:20]!r})"}
    return {}


def expressions(data: Any) -> Iterator[str]:
    """The regular expressions in a tokenizer's file."""
    if isinstance(data, dict):
        if isinstance(found := data.get("Regex"), str):
            yield found
        data = [value for key, value in data.items() if key not in {"vocab", "merges"}]
    if isinstance(data, list):
        for each in data:
            yield from expressions(each)


def texts(found: list[str]) -> list[str]:
    """What to try."""
    runs: dict[str, None] = {}
    for expression in found:
        letters = "".join(dict.fromkeys(filter(str.isalnum, expression)))[:LETTERS]
        runs |= dict.fromkeys([letters, *map("".join, combinations(letters, 2))])
    runs |= dict.fromkeys([*USUAL, *"".join(found)[:RUN]])
    runs.pop("", None)
    ends = dict.fromkeys([ODD_END, ODD_END + "".join(dict.fromkeys("".join(found)[:RUN]))])
    return [(run * RUN)[:RUN] + end for run in [*runs][:MAX_RUNS] for end in ends]
