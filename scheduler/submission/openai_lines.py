"""Lines of an OpenAI batch, as clients of OpenAI and of servers like it write them.

A key of the body is used, or changes nothing and is ignored, or would change the result and is
refused by its name.
"""

from collections.abc import Callable, Mapping
from typing import Any

from db.errors import Refused
from worker.complaints import as_given
from worker.conversations import Conversation

COMPLETIONS, CHAT = "/v1/completions", "/v1/chat/completions"
_LINE = {"body", "method", "url"}
_SAMPLING = ("temperature", "top_p", "top_k")
_LENGTHS = ("max_tokens", "max_completion_tokens")
_USED = {"model", "prompt", "messages", "n", "seed", "stop", *_SAMPLING, *_LENGTHS}


def _one_of(*values: object) -> Callable[[object], bool]:
    """Whether a value is one of these, by its type too: 1 is not true."""
    return lambda value: any(
        value == each and isinstance(value, bool) == isinstance(each, bool) for each in values
    )


def _anything(value: object) -> bool:
    return True


_NEUTRAL: Mapping[str, Callable[[object], bool]] = {  # which values change nothing
    **dict.fromkeys(
        (
            *("user", "metadata", "store", "service_tier", "safety_identifier", "prompt_cache_key"),
            *("prompt_cache_retention", "prompt_cache_options", "prediction", "stream_options"),
            *("request_id", "priority", "parallel_tool_calls", "include_usage", "cache_salt"),
        ),
        _anything,
    ),
    **dict.fromkeys(("presence_penalty", "frequency_penalty", "min_p", "min_tokens"), _one_of(0)),
    **dict.fromkeys(("top_logprobs",), _one_of(0)),
    **dict.fromkeys(("repetition_penalty", "length_penalty", "best_of"), _one_of(1)),
    **dict.fromkeys(
        (
            *("stream", "logprobs", "echo", "use_beam_search", "ignore_eos"),
            *("continue_final_message", "include_stop_str_in_output", "return_token_ids"),
        ),
        _one_of(False),
    ),
    **dict.fromkeys(("skip_special_tokens", "add_generation_prompt"), _one_of(True)),
    **dict.fromkeys(("tools", "functions"), _one_of([])),
    **dict.fromkeys(("tool_choice", "function_call"), _one_of("none", "auto")),
    **dict.fromkeys(("logit_bias", "chat_template_kwargs"), _one_of({})),
    "suffix": _one_of(""),
    "modalities": _one_of(["text"]),
    "response_format": _one_of({"type": "text"}),
    "verbosity": _one_of("medium"),
}
_REFUSED = {"reasoning_effort", "audio", "web_search_options"}  # whatever their values are


def parse_openai(line: dict[str, Any]) -> tuple[dict[str, Any], list[str]]:
    """A POST to a completions URL as the data of a `Generate`, and the ignored keys of its body."""
    url, body = _url(line), line["body"]
    if not isinstance(body, dict):
        raise Refused("body: expected a JSON object")
    if extra := line.keys() - _LINE:
        known = {*_LINE, "custom_id", "priority"}
        raise Refused.unknown("key", min(extra), known, of="the line")
    given = {key: value for key, value in body.items() if value is not None}  # null: not given
    ignored = sorted(given.keys() - _USED)
    for key in ignored:
        _refuse_meaningful(key, given[key])
    data = {
        "kind": "generate",
        "model": body.get("model"),
        "count": given.get("n", 1),
        "prompts": [{"prompt": _prompt(url, given), "custom_id": None}],
        "params": _params(given),
    }
    return data | ({"seed": given["seed"]} if "seed" in given else {}), ignored


def _url(line: Mapping[str, Any]) -> str:
    url = line.get("url")
    known = [COMPLETIONS, CHAT, *(each.removeprefix("/v1") for each in (COMPLETIONS, CHAT))]
    if line.get("method", "POST") != "POST" or url not in known:
        raise Refused(
            f"url: expected POST to {COMPLETIONS} or {CHAT} (got {line.get('method', 'POST')} "
            f"to {str(url)[:80]!r})"
        )
    return CHAT if str(url).endswith("/chat/completions") else COMPLETIONS


def _refuse_meaningful(key: str, value: object) -> None:
    """Refuse a key that is unknown, or that would change the result with this value."""
    if key not in _NEUTRAL and key not in _REFUSED:
        raise Refused.unknown("key", key, {*_USED, *_NEUTRAL}, of="body")
    if key in _REFUSED or not _NEUTRAL[key](value):
        raise Refused(
            f"body.{key}: {as_given(value)} would change the result and is not supported",
            remedy="leave it out",
        )


def _params(given: Mapping[str, Any]) -> dict[str, Any]:
    lengths = {key: given[key] for key in _LENGTHS if key in given}
    if len({*map(str, lengths.values())}) > 1:
        raise Refused(
            f"body: max_tokens is {given['max_tokens']} and max_completion_tokens is "
            f"{given['max_completion_tokens']}",
            remedy="give one of them",
        )
    params = {key: given[key] for key in _SAMPLING if key in given}
    if lengths:
        params["max_tokens"] = next(iter(lengths.values()))
    if params.get("top_k") == -1:  # all, in vLLM
        params["top_k"] = 0
    if "stop" in given:
        params["stop"] = [given["stop"]] if isinstance(given["stop"], str) else given["stop"]
    return params


def _prompt(url: str, given: Mapping[str, Any]) -> Any:
    """The conversation or text to continue, which must be the one that the URL takes."""
    used, other = ("messages", "prompt") if url == CHAT else ("prompt", "messages")
    if other in given:
        raise Refused(f"body.{other}: {url} takes {used}")
    if url == CHAT:
        try:
            return Conversation.parse(given.get("messages"))
        except Refused as error:
            raise Refused(f"body.messages: {error.message}", remedy=error.remedy) from None
    prompt = given.get("prompt", "")
    if isinstance(prompt, list) and len(prompt) == 1:
        [prompt] = prompt
    if not isinstance(prompt, str):
        raise Refused(
            f"body.prompt: expected a text (got {as_given(prompt)})",
            remedy="give each prompt a line of its own, as text, not as tokens",
        )
    return prompt
