import json
import math

import numpy as np
import pytest
import torch

from db.errors import NonFinite, Refused
from tests.families.kit import Recorder
from worker.data.dataset import LocalDataset
from worker.engine.generate import Generation, generate
from worker.families import find_family
from worker.families.gpt import FAMILY, GptParams
from worker.families.gpt.model import NETWORK
from worker.marks.watermarks.tokens import detect, variant_of
from worker.networks import kv_cache
from worker.networks.kv_cache import PAGE
from worker.networks.network import Batch, Clock, Draw, Row
from worker.networks.params import TextSampling
from worker.networks.token_choice import choose
from worker.specs import Prompt, parse_params

ENGLISH = "".join(
    f"The {animal} sat on the {thing}.\n"
    for animal in ("cat", "dog", "hen", "fox")
    for thing in ("mat", "hat", "box", "log", "car")
)
CHINESE = "".join(
    f"{who}{when}在{where}{what}。"
    for who in ("小猫", "小狗", "老人", "孩子")
    for when in ("早上", "晚上")
    for where in ("河边", "山上", "家里")
    for what in ("睡觉", "唱歌", "吃饭")
)
SMALL = {"layers": 2, "heads": 2, "width": 32, "context": 32, "batch_size": 8, "lr": 1e-2}


class Trained:
    """A small network and its feed, trained for some steps on a text."""

    def __init__(self, folder, text, steps, **given):
        rows = [{"split": 0, "text": text}, {"split": 1, "text": text[: len(text) // 4]}]
        lines = "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows)
        (folder / "documents.jsonl").write_text(lines, "utf-8")
        self.params = parse_params(GptParams, SMALL | given, what="gpt")
        self.feed = NETWORK.feed(self.params, LocalDataset(folder), seed=0, files=folder)
        torch.manual_seed(0)
        self.network = NETWORK(self.params, self.feed.shape)
        self.network.load_files(folder)
        self.optimizers = self.network.optimizers()
        self.losses = [self.step(step, step / max(steps, 1)) for step in range(steps)]
        self.network.eval()

    def step(self, step, progress):
        batch = Batch(torch.from_numpy(self.feed.train(step)[0]), None, Draw([(0, step)]))
        losses = self.network.train_step(batch, self.optimizers, Clock(step, progress))
        return float(losses["loss"])

    def write(self, count, prompt=None, first=0, seed=3, neighbours=8, **settings):
        """Texts `first` to `first + count`, in forwards of `neighbours` rows."""
        sampling = TextSampling(micro_batch=neighbours, **({"max_tokens": 40} | settings))
        rows = [Row(i, prompt=prompt) for i in range(first, first + neighbours)]
        with torch.inference_mode():
            draw = Draw([(seed, row.index) for row in rows])
            return self.network.sample(rows, draw, sampling)[:count]


@pytest.fixture(scope="module")
def english(tmp_path_factory):
    return Trained(tmp_path_factory.mktemp("english"), ENGLISH * 4, 150)


@pytest.fixture(scope="module")
def fresh(tmp_path_factory):
    """A network with random weights, for tests that need no training."""
    made = Trained(tmp_path_factory.mktemp("fresh"), ENGLISH, 0)
    torch.manual_seed(1)
    for parameter in made.network.parameters():
        torch.nn.init.normal_(parameter, std=0.3)
    return made


def test_the_family_is_found_with_its_declaration():
    assert find_family("gpt") is FAMILY
    assert FAMILY.media == "text"
    assert FAMILY.takes_prompts
    assert FAMILY.network() is NETWORK


def test_loss_begins_at_that_of_the_uniform_distribution(tmp_path):
    made = Trained(tmp_path, ENGLISH, 1)

    assert made.losses[0] == pytest.approx(math.log(made.feed.shape.vocabulary), rel=1e-4)


def test_loss_falls_and_samples_have_the_words_of_the_text(english):
    words = set(ENGLISH.replace(".", "").split())

    made = [
        word
        for text in english.write(8, temperature=0.5)
        for word in text.replace(".", "").split()[:-1]
    ]

    assert english.losses[-1] < 0.5
    assert sum(word in words for word in made) > 0.9 * len(made)


@pytest.mark.parametrize("tokenizer", ["characters", "bpe"])
def test_a_chinese_text_gives_valid_chinese(tmp_path, tokenizer):
    made = Trained(tmp_path, CHINESE * 4, 120, tokenizer=tokenizer)

    text = "".join(made.write(8, temperature=0.5))

    assert "\ufffd" not in text
    assert set(text) <= set(CHINESE)
    sentences = {sentence for sentence in text.split("。") if len(sentence) == 9}
    assert len(sentences & set(CHINESE.split("。"))) >= 5


@pytest.mark.parametrize("activation", ["relu2", "swiglu"])
def test_a_later_token_changes_no_earlier_logit(tmp_path, activation):
    made = Trained(tmp_path, ENGLISH, 3, activation=activation)
    ids = torch.from_numpy(made.feed.train(0)[0])[:, :-1]
    other = ids.clone()
    other[:, 20] = (other[:, 20] + 1) % made.feed.shape.vocabulary

    with torch.inference_mode():
        changed = (made.network(ids) != made.network(other)).any(-1).any(0)

    assert not changed[:20].any()
    assert changed[20:].all()


@pytest.mark.parametrize("page", [PAGE, 5])
def test_cached_logits_equal_those_of_one_forward(fresh, monkeypatch, page):
    monkeypatch.setattr(kv_cache, "PAGE", page)
    ids = torch.from_numpy(fresh.feed.train(0)[0])[:, :-1]
    decoder = fresh.network.decoder(len(ids))
    with torch.inference_mode():
        steps = [decoder.read(ids[:, position]) for position in range(ids.shape[1])]
        whole = fresh.network(ids)

    assert ids.shape[1] == decoder.context
    torch.testing.assert_close(torch.stack(steps, 1), whole, rtol=1e-4, atol=1e-4)


def test_a_slot_that_is_reset_reads_as_a_new_one_bit_for_bit(fresh):
    ids = torch.from_numpy(fresh.feed.train(0)[0])
    new, used = fresh.network.decoder(len(ids)), fresh.network.decoder(len(ids))
    with torch.inference_mode():
        for position in range(7):
            used.read(ids[:, position])
        used.reset(2)
        for position in range(9):
            other = ids[:, 20 - position].clone()
            other[2] = ids[5, position]
            assert torch.equal(used.read(other)[2], new.read(ids[:, position])[5])


def test_a_text_does_not_depend_on_its_neighbours(fresh):
    alone = fresh.write(8, max_tokens=90)
    later = fresh.write(8, first=4, max_tokens=90)

    assert later[:4] == alone[4:]
    assert len(set(alone)) > 4


@pytest.mark.parametrize("page", [PAGE, 5])
def test_prompts_of_very_different_lengths_are_continued_as_each_alone(fresh, monkeypatch, page):
    """Some slots fill their context, are reset and prefill again while others decode."""
    monkeypatch.setattr(kv_cache, "PAGE", page)
    prompts = (None, "The ", ENGLISH, "dog", ENGLISH[:29], "The cat sat on the mat and would not")
    asked = TextSampling(max_tokens=50, micro_batch=5, stop=["x"])
    made = {}
    for start, stop in ((0, 12), (0, 1), (2, 3), (4, 5), (5, 11)):
        prompted = tuple(Prompt(prompt=prompt or "") for prompt in prompts)
        job = Generation(fresh.network, asked, 3, start, stop, prompts=prompted)
        for sample in generate(job, Recorder()):
            assert made.setdefault(sample.index, sample.output) == sample.output

    assert len({len(text) for text in made.values()}) > 4


@pytest.mark.parametrize("slots", [1, 3, 17])
def test_requests_of_any_size_give_the_same_texts(fresh, slots):
    asked = TextSampling(max_tokens=24, micro_batch=slots, stop=["x", "M"])
    whole = texts_of(fresh, asked, 0, 64)

    assert [text for start in range(0, 64, 7) for text in texts_of(fresh, asked, start, 7)] == whole
    assert [texts_of(fresh, asked, index, 1)[0] for index in (0, 9, 63)] == [
        whole[index] for index in (0, 9, 63)
    ]


def texts_of(made, sampling, start, count):
    """The engine's texts, `count` requested at a time, none beyond the 64th."""
    job = Generation(made.network, sampling, 3, start, min(start + count, 64))
    return [sample.output for sample in generate(job, Recorder())]


def test_another_seed_gives_other_texts(fresh):
    assert fresh.write(8, seed=3) == fresh.write(8, seed=3)
    assert fresh.write(8, seed=3) != fresh.write(8, seed=4)


def test_a_text_may_be_longer_than_the_context(english):
    text = english.write(1, max_tokens=200)[0]

    assert len(text) == 200 > english.params.context
    assert text.count(" sat on the ") >= 4


def test_a_prompt_is_continued_and_not_repeated(english):
    text = english.write(1, prompt="The cat sat on", temperature=0, stop=["\n"])[0]

    assert text.startswith(" the ")
    assert text.endswith(".")


def test_a_prompt_may_end_inside_a_token(tmp_path):
    made = Trained(tmp_path, ENGLISH * 4, 150, tokenizer="bpe")
    words = set(ENGLISH.replace(".", "").split())

    after_space = made.write(8, prompt="The ", temperature=0.5, stop=["."])
    inside_word = made.write(8, prompt="The cat sat o", temperature=0.5, stop=["."])

    assert all(text.split()[0] in words and text[0] != " " for text in after_space)
    assert all(text.startswith("n the ") for text in inside_word)


def test_a_prompt_longer_than_the_context_is_read_from_its_end(english):
    text = english.write(1, prompt=ENGLISH * 3 + "The dog sat on", temperature=0, stop=["\n"])[0]

    assert text.startswith(" the ")


def test_a_prompt_may_have_unknown_characters(english):
    text = english.write(1, prompt="鸟 👩 The cat")[0]

    assert text
    assert "\ufffd" not in text


def test_a_stop_string_ends_the_text_and_is_not_part_of_it(english):
    texts = english.write(8, stop=["sat on", "zzz"])

    assert all("sat on" not in text for text in texts)
    assert any(text.endswith(" ") and len(text) < 20 for text in texts)


def test_a_document_that_ends_ends_the_text(tmp_path):
    rows = [{"split": 0, "text": "abc"}] * 20
    (tmp_path / "documents.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    made = Trained.__new__(Trained)
    made.params = parse_params(GptParams, SMALL, what="gpt")
    made.feed = NETWORK.feed(made.params, LocalDataset(tmp_path), seed=0, files=tmp_path)
    made.network = NETWORK(made.params, made.feed.shape)
    made.network.load_files(tmp_path)
    made.optimizers = made.network.optimizers()
    for step in range(40):
        made.step(step, step / 40)

    assert made.write(4, temperature=0) == ["abc"] * 4


def test_dropout_is_off_when_texts_are_made(tmp_path):
    made = Trained(tmp_path, ENGLISH, 5, dropout=0.5)

    assert made.write(8) == made.write(8)


def test_training_again_gives_the_same_weights(tmp_path):
    runs = []
    for name in ("first", "second"):
        (tmp_path / name).mkdir()
        runs.append(Trained(tmp_path / name, ENGLISH, 5))

    assert runs[0].losses == runs[1].losses
    states = [run.network.state_dict() for run in runs]
    assert all(torch.equal(states[0][key], states[1][key]) for key in states[0])


def test_validation_gives_nats_a_character_for_byte_pairs(tmp_path):
    made = Trained(tmp_path, ENGLISH * 4, 30, tokenizer="bpe")
    data = torch.from_numpy(next(iter(made.feed.validation()))[0])

    with torch.inference_mode():
        losses = made.network.validate(Batch(data, None, Draw([(0, 0)])))

    assert float(losses["nats_per_character"]) < float(losses["loss"])


def test_damaged_weights_are_refused(fresh, tmp_path):
    made = Trained(tmp_path, ENGLISH, 0)
    torch.nn.init.constant_(made.network.head.weight, torch.nan)

    with pytest.raises(NonFinite, match="not finite"):
        made.write(1)


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({"layer": 3}, "no parameter 'layer' .did you mean 'layers'"),
        ({"width": 100, "heads": 8}, "width 100 must be a multiple of 2 x heads"),
        ({"tokenizer": "words"}, "tokenizer: expected 'characters' or 'bpe'"),
        ({"dropout": 1.0}, "dropout: expected less than 1"),
    ],
)
def test_a_wrong_parameter_is_refused_by_name(wrong, message):
    with pytest.raises(Refused, match=message):
        parse_params(GptParams, wrong, what="gpt")


class TestChoose:
    logits = torch.log(torch.tensor([[0.5, 0.3, 0.15, 0.05]]))

    def chances(self, **settings):
        """How often each token is chosen, over evenly spaced numbers."""
        numbers = torch.arange(10_000) / 10_000
        sampling = TextSampling(**({"temperature": 1.0, "top_p": 1.0} | settings))
        chosen = choose(self.logits.expand(10_000, 4), numbers, sampling)
        return pytest.approx(np.bincount(chosen.numpy(), minlength=4) / 10_000, abs=0.006)

    def test_tokens_have_the_probabilities_of_the_distribution(self):
        assert self.chances() == [0.5, 0.3, 0.15, 0.05]

    def test_temperature_zero_takes_the_likeliest(self):
        assert self.chances(temperature=0) == [1, 0, 0, 0]

    @pytest.mark.parametrize("top_p", [0.9, 1.0])
    def test_so_does_a_temperature_of_almost_zero(self, top_p):
        logits, numbers = torch.tensor([[1.0, 3.0, 2.0]]).expand(2, 3), torch.tensor([0.0, 0.99])
        sampling = TextSampling(temperature=5e-324, top_p=top_p)
        assert choose(logits, numbers, sampling).tolist() == [1, 1]

    def test_temperature_sharpens(self):
        assert self.chances(temperature=0.5) == [0.68, 0.25, 0.06, 0.01]

    def test_top_k_keeps_the_k_likeliest(self):
        assert self.chances(top_k=2) == [0.62, 0.38, 0, 0]

    def test_top_p_keeps_the_fewest_that_reach_p(self):
        assert self.chances(top_p=0.7) == [0.62, 0.38, 0, 0]
        assert self.chances(top_p=0.01) == [1, 0, 0, 0]

    def test_a_token_without_a_chance_is_never_chosen(self):
        logits = torch.tensor([[-torch.inf, 0.0, -torch.inf]])
        for number in (0.0, 0.5, 1 - 2**-24):
            chosen = choose(logits, torch.tensor([number]), TextSampling(temperature=1))
            assert chosen.tolist() == [1]


def test_a_marked_text_is_known_by_its_tokens(fresh):
    sampling = TextSampling(micro_batch=4, max_tokens=250, temperature=1, top_p=1)
    rows = [Row(index, prompt="The cat", seed=3, watermark_key=b"secret") for index in range(4)]
    with torch.inference_mode():
        texts = fresh.network.sample(rows, Draw([row.key for row in rows]), sampling)
    for row, text in zip(rows, texts, strict=True):
        ids, variant = fresh.network.tokenize(text), variant_of(row.seed, row.index)
        assert detect(ids, b"secret", variant).p_value < 1e-6
        assert detect(ids, b"another", variant).p_value > 1e-4
