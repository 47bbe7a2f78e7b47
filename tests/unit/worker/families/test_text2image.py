"""The mathematics of `text2image`: quantisers, likelihoods, guidance, the cache, captions."""

import itertools
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from db.errors import BadInput, Refused
from tests.families.kit import (
    image_dataset,
    make,
    plain,
    small_params,
    small_training,
    train_small,
)
from worker.data.dataset import LocalDataset, Shape
from worker.engine.generate import Sample
from worker.engine.previews import page
from worker.engine.run import build_run
from worker.engine.sampler import Sampler
from worker.engine.train import Trained
from worker.engine.weights import load
from worker.families import families
from worker.families.text2image import FAMILY, Params, Sampling, captions
from worker.families.text2image.codec import Codec, logistic_log_likelihood
from worker.families.text2image.model import Text2Image
from worker.families.text2image.prior import Prior
from worker.families.text2image.quantisers import Fsq, Vq
from worker.families.text2image.sampling import guide, sample_tokens
from worker.feeds.tokenizer import train_tokenizer
from worker.networks.network import Batch, Clock, Draw, Network, Row
from worker.specs import Prompt

pytestmark = pytest.mark.xdist_group("text2image")  # its trainings are made once

SMALL = {"channels": 4, "layers": 2, "heads": 2, "width": 16, "levels": [4, 3], "codes": 8}


def small(**given: object) -> Params:
    return Params.model_validate(SMALL | given)


def network(size: int = 12, channels: int = 1, **given: object) -> Text2Image:
    torch.manual_seed(0)
    shape = Shape("image", size=size, channels=channels, vocabulary=9)
    return Text2Image(small(**given), shape)


def batch(made: Text2Image, rows: int = 4) -> Batch:
    generator = torch.Generator().manual_seed(0)
    size = (rows, made.shape.channels, made.shape.size, made.shape.size)
    words = torch.randint(2, 9, (rows, 5), generator=generator)
    return Batch(torch.rand(size, generator=generator) * 2 - 1, words, Draw([(0, 0)]))


def prior(**given: object) -> Prior:
    """A prior whose outputs are not zero, as they are at first."""
    torch.manual_seed(0)
    made = Prior(small(**given), words=9, tokens=12, grid=3)
    for parameter in made.parameters():
        torch.nn.init.normal_(parameter, std=0.3)
    return made.eval()


@pytest.mark.parametrize("levels", [[8, 6, 5], [2, 3], [7], [5, 4, 2, 3]])
def test_every_token_of_fsq_is_made_by_the_numbers_that_it_stands_for(levels: list[int]) -> None:
    quantiser = Fsq(levels)
    tokens = torch.arange(quantiser.size)[None]
    kept = quantiser.lookup(tokens)
    assert kept.shape == (1, len(levels), quantiser.size)
    assert kept.abs().max() == 1
    inner = kept * torch.tensor([level // 2 for level in levels])[:, None]
    counts = torch.tensor(levels)[:, None]
    half, offset = (counts - 1) * 1.001 / 2, torch.where(counts % 2 == 0, 0.5, 0.0)
    z = torch.atanh((inner + offset) / half) - torch.atanh(offset / half)
    passed, again, penalty = quantiser(z[..., None])
    assert torch.equal(again, tokens)
    assert torch.allclose(passed[..., 0], kept)
    assert penalty == 0


def test_gradients_pass_through_the_rounding_of_fsq() -> None:
    z = torch.tensor([0.3, -0.2]).view(1, 2, 1, 1).requires_grad_()
    Fsq([8, 5])(z)[0].sum().backward()
    assert z.grad is not None
    assert (z.grad > 0).all()


def test_no_number_however_large_leaves_the_levels_of_fsq() -> None:
    far = torch.tensor([-1e9, 1e9]).view(2, 1, 1, 1)
    assert Fsq([6])(far)[1].flatten().tolist() == [0, 5]


def test_vq_takes_the_nearest_code_and_passes_gradients_to_what_it_replaces() -> None:
    quantiser = Vq(3, 2)
    quantiser.codebook.copy_(torch.tensor([[0.0, 0.0], [1.0, 0.0], [0.0, 3.0]]))
    z = torch.tensor([[0.9, 0.2], [0.1, 2.0]]).T.reshape(1, 2, 1, 2).requires_grad_()
    kept, tokens, penalty = quantiser(z)
    assert tokens.tolist() == [[1, 2]]
    assert torch.equal(kept.detach(), quantiser.lookup(tokens).view(1, 2, 1, 2))
    assert float(penalty.detach()) == pytest.approx(0.25 * (0.01 + 0.04 + 0.01 + 1.0))
    kept.sum().backward()
    assert z.grad is not None
    assert torch.equal(z.grad, torch.ones_like(z))


def test_codes_of_vq_follow_the_mean_of_what_they_stand_for_and_the_unused_start_anew() -> None:
    quantiser = Vq(4, 2)
    generator = torch.Generator().manual_seed(0)
    centres = torch.tensor([[5.0, 0.0], [-5.0, 0.0]])
    for step in range(400):
        rows = centres[torch.arange(20) % 2] + 0.1 * torch.randn(20, 2, generator=generator)
        z = rows.T.reshape(1, 2, 4, 5)
        quantiser.update(z, quantiser(z)[1], Draw([(0, step)]))
    tokens = quantiser(centres.T.reshape(1, 2, 1, 2))[1]
    assert torch.allclose(quantiser.lookup(tokens)[0].T, centres, atol=0.3)
    assert (quantiser.codebook[:, 0].abs() > 4).all()  # none stayed where nothing is


@pytest.mark.parametrize(
    ("size", "grid"), [(28, 7), (32, 8), (64, 8), (12, 6), (16, 8), (48, 6), (20, 5)]
)
def test_codec_reaches_a_small_grid_and_comes_back(size: int, grid: int) -> None:
    codec = Codec(small(), Shape("image", size=size, channels=3))
    images = torch.zeros(2, 3, size, size)
    tokens = codec.encode(images)
    assert tokens.shape == (2, grid * grid)
    assert codec.decode(tokens).shape == images.shape


def test_picture_whose_side_does_not_halve_is_refused() -> None:
    with pytest.raises(Refused, match="30x30 do not halve"):
        Codec(small(), Shape("image", size=30, channels=1))


def test_chances_of_all_shades_sum_to_one() -> None:
    shades = torch.arange(256) / 127.5 - 1
    for mean, log_scale in itertools.product((-1.2, 0.1, 1.0), (-6.0, -2.0, 1.0)):
        logs = logistic_log_likelihood(shades, torch.tensor(mean), torch.tensor(log_scale))
        assert torch.isfinite(logs).all()
        assert float(logs.double().exp().sum()) == pytest.approx(1, abs=1e-4)


def test_loss_is_the_nats_of_the_pixels_and_of_the_tokens() -> None:
    made = network().eval()
    with torch.no_grad():
        for parameter in made.parameters():
            parameter.zero_()  # every pixel and every token at even odds
        losses = made.validate(batch(made))
    assert float(losses["distortion"]) == pytest.approx(144 * np.log(2), rel=1e-4)
    assert float(losses["rate"]) == pytest.approx(36 * np.log(12), rel=1e-4)
    assert float(losses["loss"]) == pytest.approx(float(losses["distortion"] + losses["rate"]))


@pytest.mark.parametrize("quantiser", ["fsq", "vq"])
def test_first_stage_moves_the_codec_alone_and_the_second_the_prior_alone(quantiser: str) -> None:
    made = network(quantiser=quantiser, first_stage=0.5)
    optimizers = made.optimizers()
    for progress, moving in ((0.2, "codec."), (0.7, "prior.")):
        before = {name: value.clone() for name, value in made.state_dict().items()}
        made.train_step(batch(made), optimizers, Clock(3, progress))
        moved = [n for n, value in made.state_dict().items() if not torch.equal(value, before[n])]
        assert moved
        assert all(name.startswith(moving) for name in moved)


def test_finetuning_leaves_the_codec_as_it_is() -> None:
    made = network(first_stage=0.9)
    made.begin_finetuning()
    optimizers = made.optimizers()
    before = {name: value.clone() for name, value in made.state_dict().items()}
    made.train_step(batch(made), optimizers, Clock())
    moved = [n for n, value in made.state_dict().items() if not torch.equal(value, before[n])]
    assert moved
    assert all(name.startswith("prior.") for name in moved)
    assert "codec" not in optimizers


def test_cached_logits_equal_the_whole_forward_s() -> None:
    model = prior()
    words = torch.tensor([[3, 4, 0, 0], [8, 2, 5, 7]])
    tokens = torch.randint(12, (2, 9), generator=torch.Generator().manual_seed(0))
    with torch.inference_mode():
        whole = model(words, tokens)
        cache = model.cache(words)
        steps = [model.prefill(words, cache)]
        steps += [model.step(tokens[:, place], place, cache) for place in range(8)]
    assert torch.allclose(torch.stack(steps, 1), whole, atol=1e-4)


def test_prediction_of_a_token_sees_the_caption_and_the_tokens_before_alone() -> None:
    model = prior()
    words = torch.tensor([[3, 4, 0, 0]])
    tokens = torch.zeros(1, 9, dtype=torch.long)
    other = tokens.clone()
    other[0, 4] = 7
    with torch.inference_mode():
        logits, changed = model(words, tokens), model(words, other)
        captioned = model(torch.tensor([[3, 5, 0, 0]]), tokens)
    assert torch.equal(logits[:, :5], changed[:, :5])
    assert not torch.equal(logits[:, 5], changed[:, 5])
    assert not torch.equal(logits[:, 0], captioned[:, 0])


def test_guidance_goes_from_the_unconditional_through_the_conditional_and_beyond() -> None:
    c, u = torch.tensor([[2.0, 0.0]]), torch.tensor([[1.0, 1.0]])
    both = torch.cat((c, u))
    assert torch.equal(guide(both, 0.0), u)
    assert torch.equal(guide(both, 1.0), c)
    assert torch.equal(guide(both, 3.0), torch.tensor([[4.0, -2.0]]))


def test_guidance_of_one_draws_what_guiding_by_one_would() -> None:
    model = prior()
    words, nothing = torch.tensor([[3, 4, 0, 0], [8, 2, 5, 7]]), torch.zeros(4, dtype=torch.long)
    numbers = Draw([(0, 0), (0, 1)]).uniform(9)
    drawn = [
        sample_tokens(model, words, nothing, numbers, Sampling(guidance=scale, top_p=1.0))
        for scale in (1.0, 1.0 + 1e-7)
    ]
    assert torch.equal(*drawn)


def test_without_a_caption_guidance_changes_nothing() -> None:
    model = prior()
    nothing = torch.zeros(4, dtype=torch.long)
    words, numbers = nothing.expand(2, 4), Draw([(0, 0), (0, 1)]).uniform(9)
    plainly = sample_tokens(model, words, nothing, numbers, Sampling(guidance=0.0))
    assert torch.equal(
        plainly, sample_tokens(model, words, nothing, numbers, Sampling(guidance=4.0))
    )


def test_captions_are_dropped_as_often_as_asked() -> None:
    made = network(drop=0.3, first_stage=0.01)
    seen = []
    made.prior.words.register_forward_hook(lambda _, given, __: seen.append(given[0]))
    optimizers = made.optimizers()
    for step in range(8):
        some = batch(made, 64)
        made.train_step(
            Batch(some.data, some.labels, Draw([(0, step)])), optimizers, Clock(step, 0.5)
        )
    dropped = torch.cat(seen).eq(0).all(1).float().mean()
    assert 0.24 < float(dropped) < 0.36


def test_a_caption_is_cut_or_filled_up_and_a_word_is_the_same_wherever_it_stands() -> None:
    texts = [captions.normalise(text) for text in ["a thin  seven", "seven", "\ta bold two\n"] * 9]
    assert texts[0] == " a thin seven"
    tokenizer = train_tokenizer(texts, kind="bpe")
    [seven] = tokenizer.encode(captions.normalise("seven"))
    assert captions.encode(tokenizer, texts[0], 5)[2:] == [seven, 0, 0]
    assert captions.encode(tokenizer, texts[0], 2) == captions.encode(tokenizer, texts[0], 5)[:2]
    assert captions.encode(tokenizer, captions.normalise(""), 3) == [0, 0, 0]


def test_examples_hold_many_words() -> None:
    texts = ["a cat", "a cat", "a dog", "a red cat", "two dogs"] * 3

    class Dataset(LocalDataset):
        @property
        def manifest(self):
            return {"shape": {"labels": []}}

        def captions(self):
            return iter(texts)

    found = captions.Captions(Dataset(Path()))
    training = captions.TrainingCaptions(found, np.array([0, 0, 0, 0, 1] * 3))
    assert captions.choose_examples(training) == ["a red cat", "a dog", "a cat"]


def test_dataset_with_neither_captions_nor_labels_is_refused(tmp_path: Path) -> None:
    bare = image_dataset(tmp_path / "bare", labels=())
    with pytest.raises(
        Refused, match=r"neither captions nor labels; add the images with a metadata\.jsonl"
    ):
        train_small(FAMILY, bare, tmp_path / "run", max_steps=1)


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Trained:
    folder = tmp_path_factory.mktemp("text2image")
    pictures = image_dataset(folder / "dataset", captioned=True)
    params = {"codec_lr": 1e-2, "first_stage": 0.3, "lr": 2e-2, "levels": [4, 4, 4], "layers": 2}
    return train_small(FAMILY, pictures, folder / "run", max_steps=300, seed=1, params=params)


@pytest.fixture
def reader(trained: Trained) -> Network:
    return load(trained.folder, device=torch.device("cpu"))[1]


def test_captions_count_where_there_are_labels_too(reader: Network) -> None:
    assert sorted(reader.examples) == ["a disc", "an upright bar"]
    assert reader.shape.labels == ()


def test_prompt_decides_what_is_seen(reader: Network) -> None:
    discs, bars = (
        make(FAMILY, reader, 0, 32, prompts=(Prompt(prompt=text),))
        for text in ("a disc", "an upright bar")
    )
    assert breadth(discs) > breadth(bars) + 0.15


def test_empty_prompt_is_none(reader: Network) -> None:
    sampler = Sampler(reader, Sampling(micro_batch=16))
    disc, empty, none = (
        np.stack(sampler.make([Row(index, prompt=text) for index in range(16)]))
        for text in ("a disc", "", None)
    )
    assert (disc != none).any()
    assert (empty == none).all()


def test_neighbours_prompts_do_not_matter(reader: Network) -> None:
    sampler = Sampler(reader, Sampling(micro_batch=8))
    prompts = ("a disc", "an upright bar", "", "a disc and an upright bar and a disc") * 2
    rows = [Row(index, prompt=prompt) for index, prompt in enumerate(prompts)]
    there, back = sampler.make(rows), sampler.make(rows[::-1])[::-1]
    assert all((one == other).all() for one, other in zip(there, back, strict=True))
    alone = sampler.make(rows[3:4] * 8)
    assert (alone[0] == there[3]).all()


def breadth(samples: list[Sample]) -> float:
    """How far light lies from the middle, left and right, in pixels; a mean over pictures."""
    light = np.stack([np.asarray(sample.output)[..., 0] for sample in samples]).clip(60) - 60.0
    columns = light.sum(1) + 1e-6  # (N, W)
    columns /= columns.sum(1, keepdims=True)
    place = np.arange(columns.shape[1])
    middle = (columns * place).sum(1, keepdims=True)
    return float(np.sqrt((columns * (place - middle) ** 2).sum(1)).mean())


def test_sheet_has_a_row_for_each_example(reader: Network, tmp_path: Path) -> None:
    sampler = Sampler(reader, Sampling(micro_batch=20))
    (_, path, _), _ = page(sampler, tmp_path, name="sheet", seed=0)
    rows = [Row(10 + column, prompt=reader.examples[1]) for column in range(10)]
    with Image.open(path) as sheet:
        assert sheet.size == (5 * (10 * 14 + 2), 5 * (2 * 14 + 2))  # two examples
        shown = np.asarray(sheet)[2::5, 2::5]
    assert (shown[16:28, 2:14] == sampler.make(rows)[0][..., 0]).all()


def test_version_without_its_captions_file_is_refused(trained: Trained, tmp_path: Path) -> None:
    for path in trained.files:
        if path.name != captions.FILE:
            (tmp_path / path.name).write_bytes(path.read_bytes())
    with pytest.raises(BadInput, match=r"captions\.json of the model cannot be read"):
        load(tmp_path, device=torch.device("cpu"))


def test_finetuning_keeps_the_words_and_shows_the_new_data_s_captions(
    trained: Trained, tmp_path: Path
) -> None:
    other = image_dataset(tmp_path / "dataset", labels=("disc", "bar"))
    params = {"levels": [4, 4, 4], "layers": 2}
    asked = small_training(
        FAMILY, other, tmp_path / "run", parent=trained.folder, max_steps=1, params=params
    )
    begun = build_run(asked)
    assert begun.network.examples == ["disc", "bar"]
    folders = (trained.folder, begun.version)
    kept = [(folder / "tokenizer.json").read_bytes() for folder in folders]
    assert kept[0] == kept[1]


def test_vq_trains_too(tmp_path: Path) -> None:
    pictures = image_dataset(tmp_path / "dataset")
    params = {"quantiser": "vq", "codes": 16}
    trained = train_small(FAMILY, pictures, tmp_path / "run", max_steps=6, params=params)
    network = load(trained.folder, device=torch.device("cpu"))[1]
    assert len(set(plain(make(FAMILY, network, 0, 4)))) > 1


def test_levels_that_make_too_many_tokens_are_refused() -> None:
    with pytest.raises(Refused, match="make 16,777,216 tokens; at most 65,536 are allowed"):
        small_params(families()["text2image"], levels=[256, 256, 256])
