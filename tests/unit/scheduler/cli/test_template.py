from pathlib import Path


def test_templates_are_listed_and_shown(genmill):
    rows = genmill("template", "list", "--json").json
    assert {"name": "summary", "fields": ["sentences", "text"]} in rows
    assert "translation" in genmill("template", "list").out
    shown = genmill("template", "show", "summary").out
    assert "{text}" in shown
    assert '"custom_id": "report-1"' in shown
    assert genmill("template", "show", "sumary").code == 4


def test_a_generate_job_takes_its_prompts_from_a_template_s_lines(genmill, prose):
    Path("texts.jsonl").write_text('{"text": "It rained.", "sentences": 1, "custom_id": "a"}\n')
    words = ["enqueue", "generate", prose, "--template", "summary", "--prompts", "texts.jsonl"]
    spec = genmill(*words, "--dry-run", "--json").json["spec"]
    [prompt] = spec["prompts"]
    assert (spec["count"], prompt["custom_id"]) == (1, "a")
    assert "in 1 sentences" in prompt["prompt"]
    assert "It rained." in prompt["prompt"]


def test_a_template_needs_a_file_and_lines_that_fill_it(genmill, prose):
    alone = genmill("enqueue", "generate", prose, "--count", "1", "--template", "summary")
    assert (alone.code, "--prompts" in alone.err) == (2, True)
    Path("texts.jsonl").write_text('{"text": "It rained."}\n')
    words = ["enqueue", "generate", prose, "--template", "summary", "--prompts", "texts.jsonl"]
    wrong = genmill(*words)
    assert (wrong.code, "line 1: no 'sentences'" in wrong.err) == (2, True)
