import gc
import itertools
import json
import shutil

import numpy as np
import pytest
import torch
from peft import PeftModel
from tokenizers import Regex
from tokenizers.normalizers import Replace
from transformers import (
    AutoModelForCausalLM,
    AutoTokenizer,
    BloomConfig,
    LlamaConfig,
    MistralConfig,
)

from db.errors import BadInput, Refused, ShortOfMemory
from db.tables import ModelVersion
from tests.families.causal import (
    CHAT,
    KINDS,
    add_record,
    gpt2,
    llama,
    write_base,
    write_tokenizer,
)
from tests.families.export import export_and_import
from tests.families.kit import SENTENCES, Recorder, run
from worker.conversations import Conversation
from worker.data.dataset import TRAIN, LocalDataset, Shape
from worker.engine import memory, threads
from worker.engine.generate import Generation, generate
from worker.engine.previews import preview_page
from worker.engine.run import build_run
from worker.engine.train import Training
from worker.engine.weights import load
from worker.families.hf import FAMILY, HfParams, HfSampling, slots
from worker.families.hf.base import bytes_to_load_base
from worker.families.hf.chat_tokenizer import ChatTokenizer, read_tokenizer
from worker.families.hf.folder import weight_files
from worker.families.hf.layout import LAYOUT
from worker.families.hf.merge import merge
from worker.families.hf.model import NETWORK, CausalModel
from worker.families.hf.packing import as_batch, pack
from worker.families.hf.probes import supports_packing
from worker.files import digest_of
from worker.marks.watermarks.tokens import g_values, ngrams_of, variant_of, watermark_of
from worker.networks.network import Batch, Clock, Draw
from worker.shards.loaded_networks import LoadedNetwork, Networks
from worker.specs import Prompt

CPU = torch.device("cpu")
TINY = {
    "vocab_size": 64, "hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 2,
    "num_attention_heads": 2, "num_key_value_heads": 1,
}  # fmt: skip
ROWS = [{"prompt": f"{one.strip()} Who?", "completion": f" {one.split()[1]}"} for one in SENTENCES]
CHATTED = [
    {
        "messages": [
            {"role": "user", "content": "Who sees the mat?"},
            {"role": "assistant", "content": "The cat."},
            {"role": "user", "content": "And the hat?"},
            {"role": "assistant", "content": "The dog."},
        ]
    }
]
FORGETFUL = (  # like templates that drop the reasoning of earlier answers
    "{% for m in messages %}<|{{ m.role }}|>"
    "{% if m.role == 'assistant' and not loop.last %}...{% else %}{{ m.content }}{% endif %}"
    "{% if m.role == 'assistant' %}<|endoftext|>{% endif %}{% endfor %}"
    "{% if add_generation_prompt %}<|assistant|>{% endif %}"
)


@pytest.fixture(scope="module")
def bases(tmp_path_factory):
    """An imported model of each kind."""
    folder = tmp_path_factory.mktemp("bases")
    return {kind: add_record(write_base(folder / kind, SENTENCES, kind=kind)) for kind in KINDS}


@pytest.fixture(scope="module")
def base(bases):
    return bases["llama"]


@pytest.fixture(scope="module")
def chatty(tmp_path_factory):
    return add_record(write_base(tmp_path_factory.mktemp("bases") / "chatty", SENTENCES, chat=CHAT))


@pytest.fixture(scope="module")
def dataset(tmp_path_factory):
    return write_rows(tmp_path_factory.mktemp("rows") / "rows", ROWS)


@pytest.fixture(scope="module")
def tuned_ones(bases, dataset, tmp_path_factory):
    """The folders of versions whose adapters were trained for some steps."""
    folder = tmp_path_factory.mktemp("tuned")
    return {kind: finetune(bases[kind], dataset, folder / kind).folder for kind in KINDS}


@pytest.fixture(scope="module")
def tuned(tuned_ones):
    return tuned_ones["llama"]


def write_rows(folder, rows):
    folder.mkdir(parents=True)
    lines = [json.dumps({"split": split, **row}) + "\n" for row in rows for split in (0, 1)]
    (folder / "documents.jsonl").write_text("".join(lines), "utf-8")
    (folder / "manifest.json").write_text(json.dumps({"kind": "text"}), "utf-8")
    return LocalDataset(folder)


def small(**given):
    known = {"context": 32, "batch_size": 8, "micro_batch": 8, "rank": 4, "lr": 0.02, "warmup": 0}
    return HfParams(**(known | given))


def training(parent, dataset, folder, *, steps=8, **given):
    return Training(FAMILY, small(**given), dataset, folder, max_steps=steps, parent=parent, seed=1)


def finetune(parent, dataset, folder, *, steps=8, **given):
    return run(training(parent, dataset, folder, steps=steps, **given))


def stepped(begun, steps=1):
    """The network of a run after some steps."""
    for step in range(steps):
        begun.network.train_step(begun.batch(step), begun.parts.optimizers, Clock())
    return begun.network


def opened(folder):
    network = load(folder, device=CPU)[1]
    assert isinstance(network, CausalModel)
    return network


def texts(network, prompts, first, end, *, seed=3, watermark_key=None, **settings):
    known = {"max_tokens": 10, "micro_batch": 8} | settings
    asked = tuple(Prompt(prompt=prompt) for prompt in prompts)
    job = Generation(
        network,
        HfSampling(**known),
        seed,
        first,
        end,
        prompts=asked,
        watermark_key=watermark_key,
    )
    return [sample.output for sample in generate(job, Recorder())]


def as_torch(rows):
    return torch.from_numpy(as_batch(rows))


def loss_of(network, data):
    with torch.inference_mode():
        return float(network.validate(Batch(data, None, Draw([(0, 0)])))["loss"])


def shown(tokenizer, example):
    """An example's text, with what is to be predicted in brackets."""
    groups = itertools.groupby(example, lambda token: token >= 0)
    return "".join(
        f"[{decode(tokenizer, ids)}]" if learnt else decode(tokenizer, [~i for i in ids])
        for learnt, ids in ((learnt, list(group)) for learnt, group in groups)
    )


def decode(tokenizer, ids):
    return tokenizer._tokenizer.decode(list(ids))


@pytest.mark.parametrize("kind", KINDS)
def test_a_packed_row_has_the_loss_of_its_examples_alone(tuned_ones, kind):
    tuned = tuned_ones[kind]
    network, drawn = opened(tuned), np.random.default_rng(0)
    examples = [drawn.integers(4, 200, size).astype(np.int32) for size in (3, 9, 5, 2, 11)]
    packed = loss_of(network, as_torch([examples]))
    alone = [loss_of(network, as_torch([[each]])) * (len(each) - 1) for each in examples]
    assert packed == pytest.approx(sum(alone) / sum(len(each) - 1 for each in examples), rel=1e-5)


def test_an_architecture_that_mixes_packed_examples_is_refused(dataset, tmp_path):
    folder = tmp_path / "bloom"
    folder.mkdir()
    size = write_tokenizer(folder, SENTENCES)
    config = BloomConfig(
        vocab_size=size, hidden_size=32, n_layer=1, n_head=2, initializer_range=0.3
    )
    model = AutoModelForCausalLM.from_config(config)
    model.save_pretrained(folder)
    add_record(folder)
    assert not supports_packing(model.eval())
    with pytest.raises(Refused, match=r"BloomForCausalLM mixes .* set packing=false"):
        build_run(training(folder, dataset, tmp_path / "run"))
    stepped(build_run(training(folder, dataset, tmp_path / "alone", packing=False)))


def test_rows_hold_every_example_once_and_never_overflow():
    lengths = np.random.default_rng(0).integers(1, 33, 500).tolist()
    rows = pack(lengths, range(500), room=32)
    assert sorted(number for row in rows for number in row) == list(range(500))
    sums = [sum(lengths[number] for number in row) for row in rows]
    assert max(sums) <= 32
    assert np.mean(sums) > 0.9 * 32


def test_only_answers_are_learnt_but_all_of_a_plain_text(chatty, base):
    plain = ChatTokenizer(read_tokenizer(base), "auto")
    [asked] = plain.examples({"prompt": "Who sees?", "completion": " The cat."})
    assert shown(plain, asked) == "Who sees?[ The cat.<|endoftext|>]"
    [text] = plain.examples({"text": "The cat has the mat."})
    assert shown(plain, text) == "[The cat has the mat.<|endoftext|>]"
    chat = ChatTokenizer(read_tokenizer(chatty), "auto")
    [talk] = chat.examples(CHATTED[0])
    assert shown(chat, talk) == (
        "<|user|>Who sees the mat?<|assistant|>[The cat.<|endoftext|>]"
        "<|user|>And the hat?<|assistant|>[The dog.<|endoftext|>]"
    )


def test_a_template_that_rewrites_earlier_turns_gives_an_example_for_each_answer(base):
    plain = read_tokenizer(base)
    plain.chat_template = FORGETFUL
    tokenizer = ChatTokenizer(plain, "auto")
    assert [shown(tokenizer, each) for each in tokenizer.examples(CHATTED[0])] == [
        "<|user|>Who sees the mat?<|assistant|>[The cat.<|endoftext|>]",
        "<|user|>Who sees the mat?<|assistant|>...<|endoftext|>"
        "<|user|>And the hat?<|assistant|>[The dog.<|endoftext|>]",
    ]


@pytest.mark.parametrize("chat", ["auto", "never"])
def test_a_prompt_has_the_same_tokens_as_in_training(chatty, chat):
    tokenizer = ChatTokenizer(read_tokenizer(chatty), chat)
    [example] = tokenizer.examples({"prompt": "The cat sees", "completion": " the mat."})
    prompt = tokenizer.prompt("The cat sees")
    assert [~token for token in example[: len(prompt)]] == prompt
    assert all(token >= 0 for token in example[len(prompt) :])


def test_examples_longer_than_the_context_are_cut_or_left_out(base, tmp_path):
    rows = [*ROWS, {"prompt": "The cat " * 40, "completion": " dog"}, {"text": "The dog. " * 40}]
    given = write_rows(tmp_path / "rows", rows)
    feed = NETWORK.feed(small(), given, seed=0, files=base)
    batches = [feed.train(step)[0] for step in range(-(-feed.train_count // 8))]
    assert max(batch.shape[2] for batch in batches) == 32
    ends = sum(int((batch[:, 0] == 0).sum()) for batch in batches[:-1])  # <|endoftext|>, learnt
    assert 0 < ends <= len(rows)
    short = write_rows(tmp_path / "short", [{"prompt": "The cat " * 40, "completion": " dog"}])
    with pytest.raises(BadInput, match=r"no example .* within 32 tokens"):
        NETWORK.feed(small(), short, seed=0, files=base)


def test_an_epoch_goes_through_every_row_once(base, dataset):
    feed = NETWORK.feed(small(batch_size=1, packing=False), dataset, seed=0, files=base)
    assert feed.train_count == len(ROWS)
    for epoch in range(2):
        steps = range(epoch * len(ROWS), (epoch + 1) * len(ROWS))
        assert len({feed.train(step)[0].tobytes() for step in steps}) == len(ROWS)


@pytest.mark.parametrize("given", [{"micro_batch": 3}, {"checkpointing": True}])
def test_settings_that_save_memory_do_not_change_a_step(base, dataset, tmp_path, given):
    weights = []
    for number, how in enumerate(({}, given)):
        begun = build_run(training(base, dataset, tmp_path / str(number), **how))
        losses = begun.network.train_step(begun.batch(0), begun.parts.optimizers, Clock())
        weights.append((losses["gradient_norm"], losses["loss"]))
    assert torch.allclose(*(torch.stack(each) for each in weights), rtol=1e-4)


def test_a_new_adapter_changes_nothing_and_training_changes_the_adapter_alone(
    base, dataset, tmp_path
):
    alone = opened(base)
    begun = build_run(training(base, dataset, tmp_path / "run"))
    data = begun.batch(0).data
    assert loss_of(begun.network, data) == pytest.approx(loss_of(alone, data), rel=1e-6)
    before = {name: value.clone() for name, value in alone.base.model.named_parameters()}
    stepped(begun)
    frozen = {name: value for name, value in before.items() if ".lora_" not in name}
    now = dict(begun.network.base.model.named_parameters())
    assert all(torch.equal(now[name], value) for name, value in frozen.items())
    assert loss_of(begun.network, data) < loss_of(alone, data)


def test_adapters_share_one_base_in_memory(base, dataset, tuned, tmp_path):
    one, alone = opened(tuned), opened(base)
    two = stepped(build_run(training(base, dataset, tmp_path / "run")), steps=3)
    assert one.base is two.base is alone.base
    prompts = ["The cat", "The dog sees the"]
    made = [texts(network, prompts, 0, 4) for network in (one, two, alone)]
    assert len({tuple(each) for each in made}) == 3
    assert [texts(network, prompts, 0, 4) for network in (one, two, alone)] == made
    name = two.adapter
    del two
    gc.collect()
    assert name not in one.base._peft.peft_config
    assert texts(one, prompts, 0, 4) == made[0]


@pytest.mark.parametrize("name", ["config.json", "generation_config.json"])
def test_equal_weights_with_other_settings_are_another_base(base, tmp_path, name):
    other = tmp_path / "other"
    shutil.copytree(base, other)
    settings = json.loads((other / name).read_text("utf-8")) | {"eos_token_id": 5}
    (other / name).write_text(json.dumps(settings), "utf-8")
    one, two = opened(base), opened(other)
    assert one.base is not two.base
    assert one.base is opened(base).base


@pytest.mark.parametrize("ends", [{}, [{}, "2", None], "2", -1, 4096, True])
def test_what_is_no_token_ends_no_text(base, tmp_path, ends):
    other = tmp_path / "other"
    shutil.copytree(base, other)
    path = other / "generation_config.json"
    path.write_text(json.dumps(json.loads(path.read_text("utf-8")) | {"eos_token_id": ends}))
    prompts = ["a", "b"]
    assert texts(opened(other), prompts, 0, 2) == texts(opened(base), prompts, 0, 2)


def test_a_shared_base_counts_once(base, tuned):
    networks = Networks(CPU, limit_bytes=2**40)
    for folder in (base, tuned):
        sha256 = {path.name: digest_of(path) for path in folder.iterdir()}
        files = {name: {"sha256": digest} for name, digest in sha256.items()}
        networks.get(ModelVersion(files=files), folder)
    adapter = sum(value.nbytes for value in opened(tuned).state_dict().values())
    assert networks.size_bytes == adapter + opened(base).base.size_bytes
    assert [loaded.size_bytes for loaded in networks._loaded.values()] == [0, adapter]
    assert all(isinstance(loaded, LoadedNetwork) for loaded in networks._loaded.values())


@pytest.mark.parametrize("kind", KINDS)
def test_a_text_depends_on_its_own_prompt_alone(tuned_ones, kind):
    tuned = tuned_ones[kind]
    network = opened(tuned)
    prompts = ["The cat", "The dog sees the mat. " * 4, "", "The hen has", "A" * 32, "The " * 9]
    whole = texts(network, prompts, 0, 24)
    assert [texts(network, prompts, i, i + 1)[0] for i in (1, 4, 23)] == [
        whole[i] for i in (1, 4, 23)
    ]
    assert texts(network, prompts, 5, 12) == whole[5:12]
    assert texts(network, prompts[:1], 0, 1) == whole[:1]
    assert len(set(whole)) > 6


@pytest.mark.parametrize("kind", KINDS)
def test_texts_are_the_same_in_slots_and_batch_after_batch(tuned_ones, kind, monkeypatch):
    network = opened(tuned_ones[kind])
    prompts = ["The cat", "The dog sees the mat. " * 3, "", "The hen has", "A" * 32, "The " * 9]
    asked = {"max_tokens": 40, "temperature": 1, "stop": ["ox"]}
    monkeypatch.setattr(slots, "ROOM", 1)
    in_slots = texts(network, prompts, 0, 29, micro_batch=4, **asked)
    assert network.base.has_slots
    network.base.has_slots = False
    assert texts(network, prompts, 0, 29, micro_batch=4, **asked) == in_slots
    assert len({len(text) for text in in_slots}) > 6


@pytest.mark.parametrize("kind", KINDS)
def test_texts_are_the_same_in_one_stream_and_in_two(tuned_ones, kind, monkeypatch):
    network = opened(tuned_ones[kind])
    prompts = ["The cat", "The dog sees the mat. " * 3, "", "The hen has", "A" * 32, "The " * 9]
    alone = texts(network, prompts, 0, 29, micro_batch=4, max_tokens=20)
    monkeypatch.setattr(threads, "_most", 2)
    assert network.has_parallel_streams()
    assert texts(network, prompts, 0, 29, micro_batch=4, max_tokens=20) == alone


def test_a_model_whose_rotation_changes_as_it_reads_has_one_stream():
    scaled = {"rope_type": "dynamic", "factor": 2.0, "rope_theta": 10_000.0}
    for rope, expected in ((None, True), (scaled, False)):
        model = AutoModelForCausalLM.from_config(LlamaConfig(rope_parameters=rope, **TINY))
        assert slots.is_static(model) == expected


@pytest.mark.parametrize(
    ("config", "expected"),
    [
        (llama(64), True),
        (gpt2(64), True),
        (MistralConfig(sliding_window=4, **TINY), False),
        (MistralConfig(sliding_window=None, **TINY), True),
        (BloomConfig(vocab_size=64, hidden_size=32, n_layer=2, n_head=2), False),
    ],
)
def test_models_with_plain_keys_and_values_have_slots(config, expected):
    model = AutoModelForCausalLM.from_config(config).eval()
    with torch.inference_mode():
        assert slots.enable_slots(model) == expected


@pytest.mark.parametrize("kind", KINDS)
def test_the_likeliest_text_is_the_one_of_transformers(tuned_ones, kind):
    tuned = tuned_ones[kind]
    prompts = ["The cat sees", "The dog", "The hen likes the box. The cat has the"]
    model = AutoModelForCausalLM.from_pretrained(tuned, local_files_only=True).eval()
    tokenizer = AutoTokenizer.from_pretrained(tuned, local_files_only=True)
    theirs = []
    for prompt in prompts:
        ids = tokenizer(prompt, return_tensors="pt").input_ids
        made = model.generate(ids, do_sample=False, max_new_tokens=10, pad_token_id=0)
        theirs.append(tokenizer.decode(made[0, ids.shape[1] :], skip_special_tokens=True))
    ours = texts(opened(tuned), prompts, 0, 3, temperature=0)
    assert ours == [text.rstrip("\ufffd") for text in theirs]


def test_a_text_ends_at_a_stop_text_or_where_the_model_has_no_more_room(base):
    network = opened(base)
    [whole] = texts(network, ["The cat"], 0, 1, max_tokens=30)
    for stop in (whole[3:6], whole[-2:]):
        [cut] = texts(network, ["The cat"], 0, 1, max_tokens=30, stop=[stop, "never said"])
        assert cut == whole[: whole.index(stop)]
    room = 48 - len(network.chat_tokenizer("auto").prompt("The cat"))
    assert len(texts(network, ["The cat"], 0, 1, max_tokens=1000)[0]) >= room // 4
    with pytest.raises(Refused, match=r"prompt 0 has \d+ tokens; .* at most 47"):
        texts(network, ["The cat sees the mat. " * 30], 0, 1)


@pytest.mark.parametrize("kind", KINDS)
def test_a_text_without_room_ends_beside_one_that_continues(bases, kind):
    network = opened(bases[kind])
    prompts = ["A" * 46, "A" * 33]  # of one bucket, in 48 positions
    made = texts(network, prompts, 0, 2, temperature=3, max_tokens=15)
    assert len(made[1].encode()) > len(made[0].encode())
    assert texts(network, prompts[:1], 0, 1, temperature=3, max_tokens=15) == made[:1]


def test_a_special_token_can_be_a_stop_text(chatty):
    network, prompts = opened(chatty), ["The cat", "The dog"]
    settings = {"temperature": 10, "top_p": 1, "max_tokens": 36}
    whole = texts(network, prompts, 0, 64, **settings)
    cut = texts(network, prompts, 0, 64, stop=["<|user|>", "<|system|>"], **settings)
    assert all(text.startswith(short) for text, short in zip(whole, cut, strict=True))
    assert cut != whole


def test_an_opening_message_of_the_assistant_is_context_only(chatty):
    tokenizer = ChatTokenizer(read_tokenizer(chatty), "auto")
    opening = {"role": "assistant", "content": "Ask me."}
    [talk] = tokenizer.examples({"messages": [opening, *CHATTED[0]["messages"][:2]]})
    assert shown(tokenizer, talk) == (
        "<|assistant|>Ask me.<|endoftext|><|user|>Who sees the mat?<|assistant|>"
        "[The cat.<|endoftext|>]"
    )
    assert list(tokenizer.examples({"messages": [opening]})) == []


SYSTEM = {"role": "system", "content": "Be kind."}
CALL = {"type": "function", "function": {"name": "look", "arguments": {"at": "mat"}}}
CALLING = [
    CHATTED[0]["messages"][0],
    {"role": "assistant", "content": "", "tool_calls": [CALL]},
    {"role": "tool", "content": "cat"},
    CHATTED[0]["messages"][1],
]
TOOLED = (
    "{% for t in tools or [] %}[{{ t.function.name }}]{% endfor %}"
    "{% for m in messages %}<|{{ m.role }}|>{{ m.content }}"
    "{% for c in m.tool_calls or [] %}{{ c.function.name }}{{ c.function.arguments | tojson }}"
    "{% endfor %}{% endfor %}{% if add_generation_prompt %}<|assistant|>{% endif %}"
)
NO_SYSTEM = "{% if messages[0].role == 'system' %}{{ raise_exception('No system!') }}{% endif %}"
DEAF = (  # to every role but two
    "{% for m in messages %}{% if m.role in ['user', 'assistant'] %}<|{{ m.role }}|>{{ m.content }}"
    "{% endif %}{% endfor %}{% if add_generation_prompt %}<|assistant|>{% endif %}"
)


def chats_by(folder, template):
    tokenizer = read_tokenizer(folder)
    tokenizer.chat_template = template
    return ChatTokenizer(tokenizer, "auto")


def test_a_conversation_is_asked_by_the_template_as_it_is_learnt(chatty):
    tokenizer = ChatTokenizer(read_tokenizer(chatty), "auto")
    asked = [SYSTEM, *CHATTED[0]["messages"][:3]]
    prompt = tokenizer.prompt(Conversation.parse(asked))
    assert tokenizer._tokenizer.decode(prompt) == (
        "<|system|>Be kind.<|user|>Who sees the mat?<|assistant|>The cat.<|endoftext|>"
        "<|user|>And the hat?<|assistant|>"
    )
    [learnt] = tokenizer.examples({"messages": [*asked, CHATTED[0]["messages"][3]]})
    assert [max(token, ~token) for token in learnt[: len(prompt)]] == prompt
    assert tokenizer.prompt(Conversation.parse(asked[1:]), "Be kind.") == prompt
    user = Conversation.parse(asked[1:2])
    assert tokenizer.prompt(user) == tokenizer.prompt("Who sees the mat?")
    with pytest.raises(Refused, match="begins with a system message"):
        tokenizer.prompt(Conversation.parse(asked), "Be curt.")


def test_without_a_chat_template_conversations_are_learnt_as_text_but_not_prompts(base, chatty):
    talk = Conversation.parse(CHATTED[0]["messages"])
    for folder, chat in ((base, "auto"), (chatty, "never")):
        with pytest.raises(Refused, match="needs a chat template"):
            ChatTokenizer(read_tokenizer(folder), chat).prompt(talk)
    plain = list(ChatTokenizer(read_tokenizer(base), "never").examples(CHATTED[0]))
    assert plain == list(ChatTokenizer(read_tokenizer(base), "auto").examples(CHATTED[0]))


def test_tools_and_their_calls_are_shown_by_the_template(chatty):
    tokenizer = chats_by(chatty, TOOLED)
    [talk] = tokenizer.examples({"messages": CALLING, "tools": [CALL]})
    assert shown(tokenizer, talk) == (
        '[look]<|user|>Who sees the mat?<|assistant|>[look{"at": "mat"}]'
        "<|tool|>cat<|assistant|>[The cat.<|endoftext|>]"
    )


def test_a_conversation_of_no_tokens_is_refused(chatty):
    tokenizer = chats_by(chatty, "{% for m in messages %}{{ m.content }}{% endfor %}")
    tokenizer._tokenizer.backend_tokenizer.normalizer = Replace(Regex(r"[\s\S]"), "")
    with pytest.raises(Refused, match="make no tokens of a conversation"):
        tokenizer.prompt(Conversation.parse([{"role": "user", "content": "犬"}]))


@pytest.mark.parametrize(
    ("template", "messages", "tools", "says"),
    [
        (NO_SYSTEM + CHAT, [SYSTEM, *CALLING[:1]], [], "No system!"),
        (DEAF, [SYSTEM, *CALLING[:1]], [], "leaves out messages of role 'system'"),
        (DEAF, [CALLING[0], CALLING[3], *CALLING[2:]], [], "leaves out messages of role 'tool'"),
        (CHAT, CALLING, [], "leaves out calls of tools"),
        (CHAT, CHATTED[0]["messages"], [CALL], "leaves out the tools"),
    ],
)
def test_what_a_template_does_not_show_is_refused(chatty, template, messages, tools, says):
    tokenizer = chats_by(chatty, template)
    with pytest.raises(BadInput, match=says):
        list(tokenizer.examples({"messages": [*messages, CALLING[3]], "tools": tools}))
    if not tools:
        with pytest.raises(BadInput, match=says):
            tokenizer.prompt(Conversation.parse([*messages, CALLING[0]]))


def test_a_template_may_trim_and_quote(chatty):
    quoting = CHAT.replace("{{ message.content }}", "{{ message.content | tojson | trim }}")
    tokenizer = chats_by(chatty, quoting)
    messages = [{"role": "system", "content": ' a "b"\n'}, *CALLING[:1]]
    assert tokenizer.prompt(Conversation.parse(messages))


def test_a_call_s_arguments_may_be_a_text_to_the_template(chatty):
    tokenizer = chats_by(
        chatty, TOOLED.replace("c.function.arguments | tojson", "'' + c.function.arguments")
    )
    [talk] = tokenizer.examples({"messages": CALLING})
    assert '<|assistant|>[look{"at": "mat"}]<|tool|>' in shown(tokenizer, talk)


@pytest.mark.parametrize(
    ("begin", "learnt"),
    [
        ("<think>", "[</think>The cat.<|endoftext|>]"),
        ("<think>\n", "[</think>The cat.<|endoftext|>]"),
    ],
)
def test_an_answer_without_the_thoughts_that_were_asked_for_is_learnt(chatty, begin, learnt):
    template = CHAT.replace(
        "{{ message.content }}",
        "{% if message.role == 'assistant' %}<think></think>{% endif %}{{ message.content }}",
    )
    tokenizer = chats_by(
        chatty, template.replace("<|assistant|>{% endif", f"<|assistant|>{begin}{{% endif")
    )
    [talk] = tokenizer.examples({"messages": CHATTED[0]["messages"][:2]})
    assert shown(tokenizer, talk) == f"<|user|>Who sees the mat?<|assistant|><think>{learnt}"


def test_a_preview_asks_what_validation_rows_ask(chatty, base, tmp_path):
    long = {"prompt": "Who? " * 40, "completion": " cat"}
    data = write_rows(tmp_path / "rows", [{"text": "The cat."}, long, *ROWS[:1], CHATTED[0]])
    begun = build_run(training(chatty, data, tmp_path / "run", context=40))
    first, second = begun.network.examples
    assert first.messages == [{"role": "user", "content": ROWS[0]["prompt"]}]
    assert second.messages == CHATTED[0]["messages"][:1]
    _, path, _ = preview_page(begun.network, begun.training, name="page")
    assert "user: Who sees the mat?\nassistant: " in path.read_text("utf-8")
    assert NETWORK.feed(small(chat="never"), data, seed=0, files=chatty).examples == []
    assert (
        NETWORK.feed(small(), write_rows(tmp_path / "plain", ROWS), seed=0, files=base).examples
        == []
    )


def test_an_answer_of_no_weight_is_context_only(chatty):
    tokenizer = ChatTokenizer(read_tokenizer(chatty), "auto")
    asked, answer, *rest = CHATTED[0]["messages"]
    [talk] = tokenizer.examples({"messages": [asked, answer | {"weight": 0}, *rest]})
    assert shown(tokenizer, talk) == (
        "<|user|>Who sees the mat?<|assistant|>The cat.<|endoftext|>"
        "<|user|>And the hat?<|assistant|>[The dog.<|endoftext|>]"
    )


def test_the_loss_of_a_validation_is_over_all_its_tokens_alike(base, tmp_path):
    rows = [{"prompt": "Who?", "completion": " cat"}, {"text": "The dog sees the mat. " * 2}]
    data = write_rows(tmp_path / "rows", rows)
    begun = build_run(training(base, data, tmp_path / "run", batch_size=1, packing=False))
    with torch.inference_mode():
        losses = [begun.network.validate(batch) for batch in begun.validation()]
    counts = [int(each["count"]) for each in losses]
    assert len(set(counts)) == 2
    run = build_run(training(base, data, tmp_path / "one"))
    [whole] = [batch.data for batch in run.validation()]
    weighted = sum(float(each["loss"]) * n for each, n in zip(losses, counts, strict=True))
    assert loss_of(run.network, whole) == pytest.approx(weighted / sum(counts), rel=1e-5)


def test_only_a_template_can_present_a_system_message(chatty, base):
    tokenizer = ChatTokenizer(read_tokenizer(chatty), "auto")
    assert decode(tokenizer, tokenizer.prompt("Who?", "Be brief.")) == (
        "<|system|>Be brief.<|user|>Who?<|assistant|>"
    )
    with pytest.raises(Refused, match="has no template"):
        ChatTokenizer(read_tokenizer(base), "auto").prompt("Who?", "Be brief.")
    with pytest.raises(Refused, match="the prompt is empty"):
        tokenizer.prompt("", "Be brief.")


# peft asks transformers by a name that is to go
@pytest.mark.filterwarnings("ignore:.is_gradient_checkpointing:FutureWarning")
def test_peft_reads_the_adapter_as_it_was_written(base, tuned):
    plain = AutoModelForCausalLM.from_pretrained(base, local_files_only=True)
    theirs = PeftModel.from_pretrained(plain, str(tuned)).eval()
    ids, mask = torch.arange(1, 13)[None], torch.ones(1, 12, dtype=torch.int64)
    with torch.inference_mode():
        ours, _ = opened(tuned).next_logits(ids, mask, None)
        assert torch.allclose(theirs(input_ids=ids).logits[:, -1], ours, atol=1e-5)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("kind", KINDS)
def test_a_merged_model_computes_what_base_and_adapter_do(tuned_ones, kind, tmp_path, dtype):
    tuned = tuned_ones[kind]
    folder = tmp_path / "merged"
    shutil.copytree(tuned, folder)
    kept = AutoModelForCausalLM.from_pretrained(tuned, local_files_only=True)
    (folder / weight_files(folder)[0]).unlink()
    for name in ("adapter_model.safetensors", "adapter_config.json"):
        (folder / name).unlink()
    base = AutoModelForCausalLM.from_pretrained(
        copy_base(tuned, tmp_path / "base"), local_files_only=True, dtype=dtype
    )
    base.save_pretrained(folder)
    for name in ("adapter_model.safetensors", "adapter_config.json"):
        shutil.copyfile(tuned / name, folder / name)
    merge(folder)
    assert not list(folder.glob("adapter_*"))
    assert "genmill" not in json.loads((folder / "config.json").read_text("utf-8"))
    merged = AutoModelForCausalLM.from_pretrained(
        folder, local_files_only=True, dtype=torch.float32
    )
    ids = torch.arange(1, 13)[None]
    with torch.inference_mode():
        far = (kept.eval()(ids).logits - merged.eval()(ids).logits).abs().max()
        assert far < (1e-4 if dtype == torch.float32 else 0.3)


def test_a_merged_export_imported_elsewhere_is_an_equal_base(tuned, tmp_path, sqlite_template):
    first = export_and_import(tuned, tmp_path / "1", sqlite_template, family=FAMILY, merge=True)
    second = export_and_import(first, tmp_path / "2", sqlite_template, family=FAMILY)
    assert not list(first.glob("adapter_*"))
    prompts = ["The cat", "The dog has"]
    assert texts(opened(first), prompts, 0, 4) == texts(opened(second), prompts, 0, 4)
    data = as_torch([[np.arange(1, 13, dtype=np.int32)]])
    assert loss_of(opened(first), data) == pytest.approx(loss_of(opened(tuned), data), abs=1e-4)


def copy_base(version, folder):
    """The base of a version's folder, without its adapter."""
    shutil.copytree(version, folder, ignore=shutil.ignore_patterns("adapter_*"))
    return folder


def test_what_does_not_fit_the_parent_or_the_machine_is_refused(base, tuned, dataset, tmp_path):
    for number, (parent, given, says) in enumerate(
        (
            (tuned, {"rank": 8}, "rank is 8, but the adapter was made with 4; set rank=4"),
            (
                base,
                {"context": 128},
                "context is 128, but this base takes at most 48 tokens; set context=48",
            ),
            (base, {"targets": ["nowhere"]}, "this base cannot have such an adapter: .*nowhere"),
            (base, {"base": "nf4"}, "base=nf4 .* needs a CUDA device"),
        )
    ):
        with pytest.raises(Refused, match=says):
            build_run(training(parent, dataset, tmp_path / str(number), **given))


def test_a_base_without_room_is_told_apart_from_a_bad_one(base, dataset, tmp_path, monkeypatch):
    monkeypatch.setattr(memory, "MEMINFO", tmp_path / "meminfo")
    memory.MEMINFO.write_text("MemAvailable: 1 kB\n")
    asked = training(base, dataset, tmp_path / "run", base="bf16")
    with pytest.raises(
        ShortOfMemory, match=r"holding the model needs .* left; free some, or take a larger machine"
    ):
        build_run(asked)


def test_a_base_held_in_bf16_is_tuned_by_an_adapter_in_fp32(base, dataset, tmp_path):
    network = stepped(build_run(training(base, dataset, tmp_path / "run", base="bf16")))
    assert {value.dtype for value in network.lora} == {torch.float32}
    assert {p.dtype for n, p in network.base.model.named_parameters() if ".lora_" not in n} == {
        torch.bfloat16
    }
    assert texts(network, ["The cat"], 0, 2) == texts(network, ["The cat"], 0, 8)[:2]


def test_a_base_held_in_nf4_keeps_all_but_its_layers_matrices_in_bf16(bases):
    model = AutoModelForCausalLM.from_pretrained(bases["llama"])
    layers = [
        m for n, m in model.named_modules() if isinstance(m, torch.nn.Linear) if "layers" in n
    ]
    held = sum(layer.weight.numel() for layer in layers)
    others = sum(weight.numel() for weight in model.parameters()) - held
    needed = bytes_to_load_base(bases["llama"], "", device=CPU, precision="nf4")
    assert needed == pytest.approx(0.52 * held + 2 * others, abs=1)


def test_the_record_takes_the_base_s_length_and_the_adapter_s_settings(tuned, base):
    config = json.loads((base / "config.json").read_text("utf-8"))
    digests = {"model.safetensors": "f" * 64}
    made = LAYOUT.record(base, {k: v for k, v in config.items() if k != "genmill"}, digests)
    assert made["base_sha256"] == "f" * 64
    assert made["params"]["context"] == 48
    assert made["shape"] == Shape("text").to_json()
    assert LAYOUT.record(tuned, {"model_type": "x"}, digests)["params"]["rank"] == 4


def test_rows_of_the_split_are_the_feed_s(base, dataset):
    assert len(list(dataset.documents(TRAIN))) == len(ROWS)
    [batch, *_] = NETWORK.feed(small(), dataset, seed=0, files=base).validation()
    assert batch[0].dtype == np.int64
    assert batch[0].shape[1] == 2


@pytest.mark.parametrize("in_slots", [True, False])
def test_marked_texts_are_known_by_their_tokens(tmp_path, in_slots):
    folder = write_base(
        tmp_path / "base", SENTENCES, kind=lambda size: llama(size, positions=256), vocabulary=10
    )
    network = opened(add_record(folder))
    assert network.has_slots()
    network.base.has_slots = in_slots

    def share_of_ones(key):
        """Of the first layer's bits; the texts end where chance ends them."""
        settings = {"max_tokens": 40, "micro_batch": 24, "temperature": 1.0, "top_p": 1.0}
        made = texts(network, ["the cat"], 0, 24, watermark_key=key, **settings)
        bits = []
        for index, text in enumerate(made):
            keys, table = watermark_of(b"secret", variant_of(3, index))
            bits += g_values(ngrams_of(network.tokenize(text)), keys[:1, None], table)[0].tolist()
        assert len(bits) > 200
        return np.mean(bits)

    assert share_of_ones(b"secret") > 0.6
    assert share_of_ones(None) == pytest.approx(0.5, abs=0.08)
