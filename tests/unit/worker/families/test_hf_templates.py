"""Chat templates: rendered as transformers renders them, and stopped where they take too much."""

import time

import pytest

from tests.families.causal import CHAT, write_base
from tests.families.kit import SENTENCES
from worker.families.hf.chat_tokenizer import ChatTokenizer, read_tokenizer
from worker.families.hf.templates import Renderer, TemplateError, TemplateLimit, TemplateSyntax

ASKED = [
    {"role": "system", "content": "Be kind. 犬"},
    {"role": "user", "content": "<Who>?", "name": None},
    {"role": "assistant", "content": "I.", "reasoning_content": "Hm."},
]
TOOLS = [{"type": "function", "function": {"name": "look", "parameters": {"b": 1, "a": [2.5]}}}]
SAME = [
    CHAT,
    "{{ bos_token }}{% for m in messages %}{{ loop.index }}{{ m.role | upper }}{% endfor %}",
    "{% for m in messages %}\n  {% if m.role == 'user' %}{% continue %}{% endif %}\n"
    "  {{ m['content'] | trim }}|{{ m.thinking }}\n{% endfor %}",
    "{{ tools | tojson(indent=2) }}{{ messages | tojson }}{{ '<&>' }}",
    "{% set n = namespace(a=0) %}{% for m in messages %}{% set n.a = 7 %}{% endfor %}{{ n.a }}",
    "{% macro s(m) %}[{{ m.content }}]{% endmacro %}{% for m in messages %}{{ s(m) }}{% endfor %}",
    "{% generation %}said{% endgeneration %}{{ add_generation_prompt }}{{ documents is none }}",
    "{{ strftime_now('%Y') }}{{ dict(a=1) | tojson }}{{ messages[0].keys() | list }}",
]
REFUSED = [
    "{{ raise_exception('No system!') }}",
    "{{ messages[0].nothing.at.all }}",
    "{% for m in messages %}{{ m.__class__.__mro__[1].__subclasses__() }}{% endfor %}",
    "{% set _ = messages.append(1) %}",
    "{{ namespace(__class__=1) }}",
    "{{ lipsum.__globals__['os'].popen('touch canary').read() }}",
]
LONG = "range(99999)"
HOSTILE = {
    "loops": f"{{% for a in {LONG} %}}{{% for b in {LONG} %}}{{% endfor %}}{{% endfor %}}",
    "a long product": "{{ 'x' * 10 ** 10 }}",
    "a large number": "{{ 10 ** (10 ** 9) }}",
    "a long text": f"{{% for a in {LONG} %}}{{{{ 'x' * 1000 }}}}{{% endfor %}}",
    "a list of itself": "{% set n = namespace(a=[1]) %}{% for i in range(40) %}"
    "{% set n.a = n.a + n.a %}{% endfor %}",
    "a growing text": "{% set n = namespace(a='x') %}{% for i in range(60) %}"
    "{% set n.a = n.a ~ n.a %}{% endfor %}",
    "a wide format": "{{ '%1000000000d' | format(1) }}",
    "recursion": "{% macro f(n) %}{{ f(n + 1) }}{% endmacro %}{{ f(0) }}",
}


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return write_base(tmp_path_factory.mktemp("base") / "chatty", SENTENCES, chat=CHAT)


@pytest.fixture
def quick():
    """A renderer that allows half a second."""
    made = Renderer(cpu_s=0.5)
    yield made
    made.close()


def render(renderer, template):
    return renderer.render(template, ASKED, [], tokens={}, begin=True)


@pytest.mark.parametrize("template", SAME)
@pytest.mark.parametrize("tools", [[], TOOLS], ids=["plain", "tools"])
@pytest.mark.parametrize("begin", [False, True])
def test_a_template_renders_as_transformers_renders_it(folder, template, tools, begin):
    tokenizer = read_tokenizer(folder)
    tokenizer.chat_template = template
    theirs = tokenizer.apply_chat_template(
        ASKED, tools=tools or None, tokenize=False, add_generation_prompt=begin
    )
    assert ChatTokenizer(tokenizer, "auto").render(ASKED, tools, begin=begin) == theirs


@pytest.mark.parametrize("template", REFUSED)
def test_what_the_sandbox_refuses_is_an_error_in_words(quick, template):
    with pytest.raises(TemplateError) as refused:
        render(quick, template)
    assert "\n" not in refused.value.message


def test_what_is_no_template_is_told_with_its_line(quick):
    with pytest.raises(TemplateSyntax, match=r"line 2: .*unknown tag 'fro'"):
        render(quick, "{{ 1 }}\n{% fro %}")


@pytest.mark.parametrize("kind", HOSTILE)
def test_a_hostile_template_is_stopped_and_the_next_one_rendered(quick, kind):
    began = time.monotonic()
    with pytest.raises((TemplateLimit, TemplateError)):
        render(quick, HOSTILE[kind])
    assert time.monotonic() - began < 30
    assert render(quick, "{{ messages | length }}") == "3"


def test_a_tokenizer_with_several_templates_uses_the_one_for_tools(folder):
    tokenizer = read_tokenizer(folder)
    tokenizer.chat_template = {"default": "plain", "tool_use": "tools"}
    chat = ChatTokenizer(tokenizer, "auto")
    assert chat.render(ASKED) == "plain"
    assert chat.render(ASKED, TOOLS) == "tools"
    tokenizer.chat_template = {"other": "x"}
    with pytest.raises(TemplateError, match="multiple chat templates"):
        chat.render(ASKED)
