from collections.abc import Mapping
from dataclasses import fields
from pathlib import Path

import pytest
import torch
from torch import Tensor
from torch.nn.utils.parametrize import is_parametrized

from db.errors import Collapsed, Refused
from tests.families.kit import Recorder, image_dataset, small_params, small_training, train_small
from worker.data.dataset import Shape
from worker.engine.run import build_run
from worker.engine.train import train
from worker.engine.weights import load
from worker.families.gan import FAMILY, Params, Sampling
from worker.families.gan.augment import AUGMENTATIONS, augment
from worker.families.gan.diversity import (
    COLLAPSED,
    FIRST_STEPS,
    diversity,
    energy_distance,
    judged_after,
)
from worker.families.gan.losses import LOSSES, slope_penalty, unit_slope_penalty
from worker.families.gan.model import Gan
from worker.families.gan.networks import MinibatchStddev
from worker.networks.family import Family
from worker.networks.network import Batch, Clock, Draw, Losses, Network, Row

DIGITS = tuple("0123456789")


def gan(
    size: int = 28, channels: int = 1, labels: tuple[str, ...] = DIGITS, **given: object
) -> Gan:
    params = Params.model_validate({"channels": 4, "latent": 8} | given)
    torch.manual_seed(0)
    return Gan(params, Shape("image", labels=labels, size=size, channels=channels))


def batch(network: Gan, place: int = 0) -> Batch:
    shape = network.shape
    generator = torch.Generator().manual_seed(place)
    data = torch.rand(6, shape.channels, shape.size, shape.size, generator=generator) * 2 - 1
    labels = torch.arange(6) % len(shape.labels) if shape.labels else None
    return Batch(data, labels, Draw([(0, place)]))


def weights(network: torch.nn.Module) -> Tensor:
    return torch.cat([parameter.detach().flatten() for parameter in network.parameters()])


@pytest.mark.parametrize("arch", ["dcgan", "mlp"])
@pytest.mark.parametrize(
    ("size", "channels", "labels"), [(28, 1, DIGITS), (32, 3, ()), (64, 3, ("a", "b"))]
)
def test_pair_fits_the_data_s_size(
    arch: str, size: int, channels: int, labels: tuple[str, ...]
) -> None:
    network = gan(size, channels, labels, arch=arch)
    losses = network.train_step(batch(network), network.optimizers(), Clock())
    assert all(torch.isfinite(value) for value in losses.values())
    network.eval()
    rows = [Row(index, 0 if labels else None) for index in range(3)]
    with torch.inference_mode():
        made = network.sample(rows, Draw([(0, i) for i in range(3)]), Sampling())
    assert [picture.shape for picture in made] == [(size, size, channels)] * 3  # type: ignore[union-attr]


def test_size_without_a_ladder_is_refused() -> None:
    with pytest.raises(Refused, match="50x50"):
        gan(50)


@pytest.mark.parametrize("loss", sorted(LOSSES))
def test_each_loss_trains_both_of_the_pair(loss: str) -> None:
    network = gan(loss=loss, r1=0, gradient_penalty=0)
    before = weights(network.generator), weights(network.discriminator)
    network.train_step(batch(network), network.optimizers(), Clock())
    assert not torch.equal(before[0], weights(network.generator))
    assert not torch.equal(before[1], weights(network.discriminator))


@pytest.mark.parametrize("loss", sorted(LOSSES))
def test_discriminator_wants_real_high_and_the_generator_fake_high(loss: str) -> None:
    high, low = torch.tensor([0.5]), torch.tensor([-0.5])
    pair = LOSSES[loss]
    assert pair.discriminator(high, low) < pair.discriminator(low, high)
    assert pair.generator(low, high) < pair.generator(high, low)


def test_penalty_is_half_the_squared_slope() -> None:
    images = torch.ones(5, 1, 2, 2, requires_grad=True)
    assert float(slope_penalty(3 * images.sum((1, 2, 3)), images).detach()) == pytest.approx(
        0.5 * 4 * 9
    )


def test_wasserstein_penalty_is_the_squared_distance_of_the_slope_from_one() -> None:
    real, fake = torch.ones(5, 1, 2, 2), torch.zeros(5, 1, 2, 2)
    penalty = unit_slope_penalty(lambda images: 3 * images.sum((1, 2, 3)), real, fake)
    assert float(penalty.detach()) == pytest.approx((3 * 2 - 1) ** 2)
    halves = []
    unit_slope_penalty(lambda images: halves.append(images) or images.sum((1, 2, 3)), real, fake)  # type: ignore[func-returns-value]
    [between] = halves
    assert 0 <= float(between.detach().min()) < float(between.detach().max()) <= 1


@pytest.mark.parametrize(
    ("given", "which"),
    [({"r1": 100.0}, "real"), ({"r2": 100.0}, "fake"), ({"loss": "wgan-gp"}, "between")],
)
def test_penalty_comes_every_few_steps_and_counts_as_many_times(
    given: dict[str, object], which: str
) -> None:
    network = gan(**({"r1": 0.0, "penalty_every": 3} | given))
    plain = gan(**({"r1": 0.0} | given | {"r1": 0.0, "r2": 0.0, "gradient_penalty": 0.0}))
    seen = []
    for step in range(3):
        for one in (network, plain):
            torch.manual_seed(step)
            one.load_state_dict(gan(**given).state_dict())
            torch.manual_seed(step)
            seen.append(one.train_step(batch(one), one.optimizers(), Clock(step))["discriminator"])
    extra = [float(some - other) for some, other in zip(seen[::2], seen[1::2], strict=True)]
    assert extra[1:] == [0, 0]
    assert extra[0] > 0
    weighted = gan(**({"r1": 0.0, "penalty_every": 6} | given))
    torch.manual_seed(0)
    loss = weighted.train_step(batch(weighted), weighted.optimizers(), Clock(0))["discriminator"]
    assert float(loss - seen[1]) == pytest.approx(2 * extra[0], rel=1e-3), which


def test_spectral_norm_holds_every_weight_of_the_discriminator_to_one() -> None:
    network = gan(spectral_norm=True)
    optimizers = network.optimizers()
    for step in range(20):
        network.train_step(batch(network, step), optimizers, Clock(step))
    network.eval()
    modules = [one for one in network.discriminator.modules() if is_parametrized(one, "weight")]
    assert len(modules) == 4  # two convolutions, the score and the labels' embedding
    for module in modules:
        largest = torch.linalg.matrix_norm(module.weight.detach().flatten(1), 2)
        assert float(largest) == pytest.approx(1, abs=0.1)
    assert not any(is_parametrized(module) for module in network.generator.modules())


def test_minibatch_stddev_tells_one_picture_from_many() -> None:
    spread = MinibatchStddev()
    many = torch.randn(64, 3, 5, 5, generator=torch.Generator().manual_seed(0))
    shown = spread(many)
    assert shown.shape == (64, 4, 5, 5)
    assert torch.equal(shown[:, :3], many)
    assert float(shown[0, 3, 0, 0]) == pytest.approx(1, abs=0.05)
    assert float(spread(many[:1].expand(64, -1, -1, -1))[:, 3].max()) < 1e-3


@pytest.mark.parametrize("arch", ["dcgan", "mlp"])
@pytest.mark.parametrize("loss", sorted(LOSSES))
def test_pair_trains_with_every_option_at_once_in_bf16(arch: str, loss: str) -> None:
    options = {
        "arch": arch,
        "loss": loss,
        "spectral_norm": True,
        "minibatch_stddev": True,
        "augment": "color,translation,cutout",
        "r2": 1.0,
    }
    network = gan(**options)
    before = weights(network.generator), weights(network.discriminator)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        losses = network.train_step(batch(network), network.optimizers(), Clock())
    assert all(torch.isfinite(value) for value in losses.values())
    assert not torch.equal(before[0], weights(network.generator))
    assert not torch.equal(before[1], weights(network.discriminator))


def test_discriminator_s_rate_is_its_own_where_it_is_given() -> None:
    for given, wanted in (({}, 0.01), ({"discriminator_lr": 0.04}, 0.04)):
        network = gan(lr=0.01, **given)
        optimizers = network.optimizers()
        network.train_step(batch(network), optimizers, Clock(rate=0.5))
        rates = {name: one.param_groups[0]["lr"] for name, one in optimizers.items()}
        assert rates == pytest.approx({"generator": 0.005, "discriminator": wanted / 2})


@pytest.mark.parametrize("policy", [*AUGMENTATIONS, "color,translation,cutout"])
def test_augmentation_alters_images_each_in_its_way_and_lets_gradients_through(
    policy: str,
) -> None:
    torch.manual_seed(0)
    picture = torch.rand(1, 3, 16, 16) * 2 - 1
    images = picture.repeat(8, 1, 1, 1).requires_grad_()
    altered = augment(images, policy)
    assert altered.shape == images.shape
    assert len({one.detach().numpy().tobytes() for one in altered}) > 4
    altered.sum().backward()  # type: ignore[no-untyped-call]  # torch leaves it untyped
    assert images.grad is not None
    assert bool((images.grad != 0).flatten(1).any(1).all())


def test_translation_moves_by_at_most_an_eighth_and_cutout_leaves_a_hole() -> None:
    torch.manual_seed(0)
    dot = torch.zeros(200, 1, 16, 16)
    dot[:, :, 8, 8] = 1
    _, _, rows, columns = augment(dot, "translation").nonzero(as_tuple=True)
    assert (int(rows.min()), int(rows.max())) == (6, 10)
    assert (int(columns.min()), int(columns.max())) == (6, 10)
    left = augment(torch.ones(200, 1, 16, 16), "cutout").sum((1, 2, 3))
    assert float(left.min()) == 16 * 16 - 8 * 8
    assert float(left.max()) < 16 * 16


def test_no_augmentation_leaves_images_alone() -> None:
    images = torch.rand(2, 1, 4, 4)
    assert augment(images, "none") is images


def test_unknown_augmentation_is_refused_with_those_that_are_known() -> None:
    with pytest.raises(Refused, match=r"augment: .*color, translation and cutout.*'rotate'"):
        small_params(FAMILY, augment="rotate")


def test_finetuning_leaves_the_discriminator_s_lowest_layers_alone(tmp_path: Path) -> None:
    dataset = image_dataset(tmp_path / "dataset")
    parent = train_small(FAMILY, dataset, tmp_path / "parent", max_steps=2)
    was = load(parent.folder, device=torch.device("cpu"))[1].state_dict()
    moved = {}
    for count in (0, 1, 9):
        asked = {"freeze_discriminator": count, "finetune_rate": 1.0}
        run = tmp_path / str(count)
        child = train_small(FAMILY, dataset, run, params=asked, parent=parent.folder, max_steps=2)
        now = load(child.folder, device=torch.device("cpu"))[1].state_dict()
        moved[count] = {
            name
            for name, value in was.items()
            if name.startswith("discriminator.") and not torch.equal(value, now[name])
        }
    low = {"discriminator.body.0.weight", "discriminator.body.0.bias"}
    assert moved[0] - moved[1] == low
    assert {name.split(".")[1] for name in moved[9]} == {"score", "embed"}


def test_samples_come_from_the_average_of_the_generators() -> None:
    network = gan(ema=0.5)
    optimizers = network.optimizers()
    first = weights(network.average)
    network.train_step(batch(network), optimizers, Clock())
    # the first of the averages takes nine tenths of the new generator
    assert torch.allclose(weights(network.average), 0.1 * first + 0.9 * weights(network.generator))
    for step in range(1, 12):
        network.train_step(batch(network, step), optimizers, Clock(step))
    before = weights(network.average)
    network.train_step(batch(network), optimizers, Clock(12))
    assert torch.allclose(weights(network.average), (before + weights(network.generator)) / 2)
    assert int(network.averaged) == 13


def test_learning_rate_falls_in_the_second_half_of_the_budget() -> None:
    network = gan()
    optimizers = network.optimizers()
    rates = []
    for progress in (0.0, 0.5, 0.75, 1.0):
        network.train_step(batch(network), optimizers, Clock(0, progress))
        rates.append(optimizers["generator"].param_groups[0]["lr"] / network.params.lr)
    assert rates == pytest.approx([1, 1, 0.55, 0.1])


def test_truncation_brings_samples_nearer_to_one_another() -> None:
    network = gan().eval()
    rows = [Row(index, 3) for index in range(8)]
    spreads = []
    for truncation in (0.1, 1.0):
        with torch.inference_mode():
            made = network.sample(
                rows, Draw([(0, i) for i in range(8)]), Sampling(truncation=truncation)
            )
        stacked = torch.stack([torch.from_numpy(m).float() for m in made])  # type: ignore[arg-type]
        spreads.append(float(stacked.std(0).mean()))
    assert spreads[0] < 0.5 * spreads[1]


def test_energy_distance_is_none_for_equal_sets_and_grows_with_a_shift() -> None:
    generator = torch.Generator().manual_seed(0)
    some, others = (torch.randn(400, 5, generator=generator) for _ in range(2))
    near, far = energy_distance(some, others), energy_distance(some, others + 1)
    assert abs(float(near)) < 0.05
    assert float(far) > 0.5
    assert torch.isfinite(energy_distance(some[:1], others[:1]))


def test_diversity_is_one_for_equal_sets_and_none_for_one_picture_a_label() -> None:
    generator = torch.Generator().manual_seed(0)
    some, others = (torch.randn(400, 5, generator=generator) for _ in range(2))
    labels = torch.arange(400) % 4
    assert float(diversity(some, others, None)) == pytest.approx(1, abs=0.1)
    assert float(diversity(some, others, labels)) == pytest.approx(1, abs=0.1)
    assert float(diversity(some, others[:1].expand(400, -1), None)) < 1e-3
    # four pictures, one a label, look varied to whoever does not heed the labels
    of_labels = others[:4].repeat(100, 1)
    assert float(diversity(some, of_labels, None)) > 0.5
    assert float(diversity(some, of_labels, labels)) < 1e-3


def test_diversity_without_two_to_compare_is_that_of_equal_sets() -> None:
    one = torch.randn(1, 5)
    assert float(diversity(one, one, torch.tensor([0]))) == 1
    same = torch.zeros(3, 5)
    assert float(diversity(same, same, None)) == 1


def test_collapse_is_told_with_its_numbers_but_not_of_a_generator_unformed() -> None:
    network = gan()
    good = {"loss": 0.1, "diversity": COLLAPSED, "accuracy": 0.8}
    bad = {"loss": 0.1, "diversity": COLLAPSED / 2, "accuracy": 0.97}
    assert network.judge(bad) is None
    network.averaged.fill_(judged_after(network.params.lr))
    assert network.judge(good) is None
    reason = network.judge(bad)
    assert reason is not None
    assert f"{COLLAPSED / 2:.3f}" in reason
    assert "97%" in reason
    network.begin_finetuning()  # to other data, which may be far more varied
    assert network.judge(bad) is None


def test_generator_is_formed_the_later_the_lower_its_rate() -> None:
    assert [judged_after(lr) for lr in (1.0, 1e-3, 1e-4)] == [FIRST_STEPS, 500, 5000]


class Declared(Family):
    """The family with a network of the test's own."""

    def network(self) -> type[Network]:
        return Stuck


class Stuck(Gan):
    """Once it is formed, forgets its noise at any rate above half of the one asked for."""

    def train_step(
        self, batch: Batch, optimizers: Mapping[str, torch.optim.Optimizer], clock: Clock
    ) -> Losses:
        losses = super().train_step(batch, optimizers, clock)
        if clock.step > FIRST_STEPS and clock.rate > 0.5:
            for one in (self.generator, self.average):
                torch.nn.init.zeros_(next(one.body.parameters()))
        return losses


def test_collapsed_run_goes_back_to_good_weights_and_on_at_half_the_rate(tmp_path: Path) -> None:
    family = Declared(**{field.name: getattr(FAMILY, field.name) for field in fields(FAMILY)})
    dataset, monitor = image_dataset(tmp_path / "dataset"), Recorder()
    every = {"arch": "mlp", "validate_every": 150, "lr": 2e-3}
    steps = FIRST_STEPS + 300
    trained = train(
        small_training(family, dataset, tmp_path / "run", params=every, max_steps=steps), monitor
    )
    [told] = [line for line in monitor.logs if "mode collapse" in line]
    assert told.startswith("warning: ")
    assert "at 1/2 of the learning rate" in told
    assert trained.metrics["diversity"] > COLLAPSED
    assert trained.steps == steps


def test_run_that_collapses_again_and_again_fails_with_its_reason(tmp_path: Path) -> None:
    dataset, monitor = image_dataset(tmp_path / "dataset"), Recorder()
    absurd = {"lr": 1.0, "r1": 0.0, "validate_every": 150, "arch": "mlp"}
    asked = small_training(FAMILY, dataset, tmp_path / "run", params=absurd, max_steps=10_000)
    with pytest.raises(Collapsed, match=r"mode collapse: .* after 2 roll-backs .*; a lower lr"):
        train(asked, monitor)
    [first, second] = [line for line in monitor.logs if "mode collapse" in line]
    assert "at 1/2 of" in first
    assert "at 1/4 of" in second
    assert not list(tmp_path.rglob("model.safetensors"))


def test_going_back_takes_the_average_for_the_generator(tmp_path: Path) -> None:
    network = build_run(
        small_training(FAMILY, image_dataset(tmp_path / "dataset"), tmp_path / "run", max_steps=9)
    ).network
    assert isinstance(network, Gan)
    optimizers = network.optimizers()
    shape = network.shape
    data = torch.zeros(4, shape.channels, shape.size, shape.size)
    labels = torch.arange(4) % 2
    for step in range(2):
        network.train_step(Batch(data, labels, Draw([(0, step)])), optimizers, Clock(step))
    assert not torch.equal(weights(network.generator), weights(network.average))
    network.roll_back()
    assert torch.equal(weights(network.generator), weights(network.average))
