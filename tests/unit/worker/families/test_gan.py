import pytest
import torch
from torch import Tensor

from db.errors import Refused
from worker.data.feed import Shape
from worker.families.gan import Params, Sampling
from worker.families.gan.losses import LOSSES, energy_distance, r1_penalty
from worker.families.gan.model import Gan
from worker.families.network import Batch, Clock, Draw, Row

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
    return Batch(data, labels, Draw(0, [place]))


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
        made = network.sample(rows, Draw(0, range(3)), Sampling())
    assert [picture.shape for picture in made] == [(size, size, channels)] * 3  # type: ignore[union-attr]


def test_size_without_a_ladder_is_refused() -> None:
    with pytest.raises(Refused, match="50x50"):
        gan(50)


@pytest.mark.parametrize("loss", sorted(LOSSES))
def test_each_loss_trains_both_of_the_pair(loss: str) -> None:
    network = gan(loss=loss, r1=0)
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
    assert float(r1_penalty(3 * images.sum((1, 2, 3)), images).detach()) == pytest.approx(
        0.5 * 4 * 9
    )


def test_penalty_comes_every_few_steps_and_calms_the_discriminator() -> None:
    runs = {r1: gan(r1=r1, r1_every=2) for r1 in (0.0, 100.0)}
    for network in runs.values():
        optimizers = network.optimizers()
        for step in range(2):
            network.train_step(batch(network, step), optimizers, Clock(step))
    [free, held] = runs.values()
    slopes = []
    for network in (free, held):
        given = batch(network)
        real = given.data.requires_grad_()
        slope = r1_penalty(network.discriminator(real, given.labels), real)
        slopes.append(float(slope.detach()))
    assert slopes[1] < slopes[0]


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
            made = network.sample(rows, Draw(0, range(8)), Sampling(truncation=truncation))
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
