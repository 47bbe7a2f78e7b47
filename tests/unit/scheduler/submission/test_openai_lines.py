"""Lines of OpenAI batches: which keys are used, ignored and refused, and how roles survive."""

import json
from collections import Counter

import pytest

from db import batches
from db.errors import Refused
from scheduler.submission.batch_lines import check_batch
from scheduler.submission.batches import enqueue_batch
from scheduler.submission.estimates import estimate_each
from worker.services.prompts import SHA256, load_spec

USER = {"role": "user", "content": "Hi"}
TALK = [
    {"role": "developer", "content": "Be terse."},
    USER,
    {"role": "assistant", "content": "Hello!"},
    {"role": "user", "content": [{"type": "text", "text": "Bye"}]},
]
PLAIN_TALK = [{"role": "system", "content": "Be terse."}, USER, TALK[2],
              {"role": "user", "content": "Bye"}]  # fmt: skip


def line(url="/v1/chat/completions", **body):
    given = {"model": "chatty", "seed": 1} | body
    if "chat" in url and "messages" not in body:
        given["messages"] = [USER]
    return json.dumps({"custom_id": "a", "method": "POST", "url": url, "body": given})


def checked(services, **body):
    ignored = Counter()
    [request] = check_batch(services, [line(**body)], ignored=ignored)
    assert dict(ignored) == dict.fromkeys(request.ignored, 1)
    return request


def prompts_of(request):
    return [each["prompt"] for each in request.pinned.data["prompts"]]


@pytest.mark.parametrize(
    ("given", "params"),
    [
        ({"max_completion_tokens": 8}, {"max_tokens": 8}),
        ({"max_completion_tokens": 8, "max_tokens": 8}, {"max_tokens": 8}),
        ({"max_tokens": None, "max_completion_tokens": 8}, {"max_tokens": 8}),
        ({"stop": "x", "top_p": 0.5}, {"stop": ["x"], "top_p": 0.5}),
        ({"stop": ["x", "y"], "temperature": 0}, {"stop": ["x", "y"], "temperature": 0}),
        ({"top_k": -1}, {"top_k": 0}),
    ],
)
def test_sampling_keys_are_used(services, given, params) -> None:
    asked = checked(services, **given).asked
    assert asked.params == params
    assert (asked.count, asked.seed) == (1, 1)


@pytest.mark.parametrize(
    "given",
    [
        {"stream": False},
        {"user": "u", "store": True, "metadata": {"a": "b"}, "service_tier": "auto"},
        {"presence_penalty": 0, "frequency_penalty": 0.0},
        {"logprobs": False, "top_logprobs": 0},
        {"response_format": {"type": "text"}, "modalities": ["text"]},
        {"tools": [], "tool_choice": "none", "parallel_tool_calls": True},
        {"logit_bias": {}, "safety_identifier": "x", "prompt_cache_key": "y"},
        {"repetition_penalty": 1.0, "min_p": 0, "skip_special_tokens": True},
    ],
)
def test_keys_that_change_nothing_are_ignored_and_listed(services, given) -> None:
    request = checked(services, **given)
    assert request.ignored == tuple(sorted(given))
    assert next(estimate_each(services, [request])).ignored == request.ignored
    assert request.new_job() == checked(services).new_job()


def test_null_is_not_given(services) -> None:
    assert checked(services, stop=None, tools=None, n=None, user=None).ignored == ()


@pytest.mark.parametrize(
    ("given", "says"),
    [
        ({"stream": True}, "body.stream"),
        ({"presence_penalty": 0.5}, "body.presence_penalty"),
        ({"logprobs": True}, "body.logprobs"),
        ({"response_format": {"type": "json_object"}}, "body.response_format"),
        ({"tools": [{"type": "function", "function": {"name": "f"}}]}, "body.tools"),
        ({"tool_choice": "required"}, "body.tool_choice"),
        ({"logit_bias": {"50256": -100}}, "body.logit_bias"),
        ({"reasoning_effort": "low"}, "body.reasoning_effort"),
        ({"max_tokens": 4, "max_completion_tokens": 8}, "max_completion_tokens is 8"),
        ({"n": 0}, "count"),
        ({"temprature": 1}, "'temprature' .did you mean 'temperature'"),
        ({"prompt": "Hi"}, "body.prompt"),
        ({"messages": []}, "body.messages"),
        ({"messages": [{"role": "critic", "content": "x"}]}, "unknown role 'critic'"),
        ({"messages": [USER | {"content": [{"type": "image_url"}]}]}, "type 'image_url'"),
        ({"model": "imported"}, "model imported:1 has no chat template"),
        ({"model": "mute"}, "model mute:1 has no chat template"),
    ],
)
def test_what_would_change_the_result_is_refused_by_name(services, given, says) -> None:
    with pytest.raises(Refused, match=says):
        list(check_batch(services, [line(**given)]))


def test_keys_beside_the_body_are_refused_by_name(services) -> None:
    wrong = json.loads(line()) | {"seed": 4}
    with pytest.raises(Refused, match="the line has no key 'seed'"):
        list(check_batch(services, [json.dumps(wrong)]))


def test_messages_keep_their_roles(services) -> None:
    assert prompts_of(checked(services, messages=TALK)) == [PLAIN_TALK]


def test_a_lone_user_message_is_the_job_that_its_prompt_is(services) -> None:
    parts = [{"role": "user", "content": [{"type": "text", "text": "Hi"}]}]
    asked = checked(services, messages=parts), checked(services)
    prompt = checked(services, url="/v1/completions", prompt="Hi")
    assert [prompts_of(each) for each in asked] == [["Hi"], ["Hi"]]
    assert {each.new_job().spec_hash for each in asked} == {prompt.new_job().spec_hash}


def test_completions_take_a_text_and_not_tokens(services) -> None:
    url = "/v1/completions"
    assert prompts_of(checked(services, url=url, prompt=["Hi"], model="imported")) == ["Hi"]
    for wrong in (["a", "b"], [1, 2], [[1]]):
        with pytest.raises(Refused, match="a line of its own"):
            list(check_batch(services, [line(url, prompt=wrong)]))


def test_a_long_conversation_is_kept_beside_the_row_and_comes_back(services) -> None:
    long = [{"role": "user", "content": "x" * 5000}, *TALK]
    batch = enqueue_batch(services, [line(messages=long)], idempotency_key="k")
    assert enqueue_batch(services, [line(messages=long)], idempotency_key="k").id == batch.id
    with services.database.read() as session:
        [job] = batches.jobs_of(session, batch.id, with_spec=True)
    assert SHA256 in job.spec
    [prompt] = load_spec(services.store, job.spec).prompts
    assert prompt.prompt.messages == [long[0], *PLAIN_TALK]
    with pytest.raises(Refused, match="differs in prompts"):
        enqueue_batch(services, [line(messages=[*long, USER])], idempotency_key="k")


def test_the_same_conversation_repeats_an_idempotency_key(services) -> None:
    batch = enqueue_batch(services, [line(messages=TALK)], idempotency_key="k")
    again = enqueue_batch(services, [line(messages=PLAIN_TALK, user="u")], idempotency_key="k")
    assert again.id == batch.id
    with pytest.raises(Refused, match="differs in prompts"):
        enqueue_batch(services, [line(messages=TALK[:2])], idempotency_key="k")


def test_chat_never_is_refused_for_a_conversation(services) -> None:
    spec = {"kind": "generate", "model": "chatty", "count": 1, "params": {"chat": "never"}}
    with pytest.raises(Refused, match="chat is never"):
        list(check_batch(services, [json.dumps(spec | {"prompts": [{"prompt": TALK}]})]))
