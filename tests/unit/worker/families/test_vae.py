import pytest
import torch

from worker.data.feed import Shape
from worker.families.network import Batch, Clock, Draw, Row
from worker.families.vae import Params, Sampling
from worker.families.vae.model import Vae


def vae(
    size: int = 28, channels: int = 1, labels: tuple[str, ...] = ("a", "b"), **given: object
) -> Vae:
    params = Params.model_validate({"channels": 4, "latent": 8, "hidden": 16} | given)
    torch.manual_seed(0)
    return Vae(params, Shape("image", labels=labels, size=size, channels=channels))


def batch(network: Vae) -> Batch:
    shape = network.shape
    generator = torch.Generator().manual_seed(0)
    data = torch.rand(6, shape.channels, shape.size, shape.size, generator=generator) * 2 - 1
    return Batch(data, torch.arange(6) % 2 if shape.labels else None, Draw(0, [0]))


@pytest.mark.parametrize(
    ("size", "channels", "labels"), [(28, 1, ("a", "b")), (32, 3, ()), (64, 3, ("a", "b"))]
)
def test_network_fits_the_data_s_size(size: int, channels: int, labels: tuple[str, ...]) -> None:
    network = vae(size, channels, labels)
    losses = network.train_step(batch(network), network.optimizers(), Clock())
    assert all(torch.isfinite(value) for value in losses.values())
    rows = [Row(index, 0 if labels else None) for index in range(3)]
    with torch.inference_mode():
        made = network.eval().sample(rows, Draw(0, range(3)), Sampling())
    assert [picture.shape for picture in made] == [(size, size, channels)] * 3  # type: ignore[union-attr]


def test_loss_is_distortion_and_rate_in_nats() -> None:
    network = vae().eval()
    with torch.no_grad():
        for parameter in network.parameters():
            parameter.zero_()  # a code equal to the prior, and every pixel even odds
        losses = network.validate(batch(network))
    assert float(losses["rate"]) == 0
    assert float(losses["distortion"]) == pytest.approx(28 * 28 * 0.6931, rel=1e-3)
    assert float(losses["loss"]) == pytest.approx(float(losses["distortion"]))


def test_kl_term_warms_up_to_its_full_weight() -> None:
    gradients = []
    for progress in (0.0, 0.1, 0.2):
        network = vae(warm_up=0.2, lr=1e-9)
        network.train_step(batch(network), network.optimizers(), Clock(0, progress))
        gradients.append(network.encoder.code.weight.grad)
    cold, half, warm = gradients
    assert cold is not None
    assert half is not None
    assert torch.allclose(2 * half, cold + warm, atol=1e-3)
    assert not torch.allclose(cold, warm, atol=1e-3)


def test_greater_beta_keeps_the_code_nearer_to_the_prior() -> None:
    rates = []
    for beta in (0.0, 20.0):
        network = vae(beta=beta, warm_up=0, lr=1e-2)
        optimizers = network.optimizers()
        for step in range(20):
            losses = network.train_step(batch(network), optimizers, Clock(step))
        rates.append(float(losses["rate"]))
    assert rates[1] < rates[0]


def test_label_decides_what_is_made_of_a_code() -> None:
    network = vae().eval()
    with torch.inference_mode():
        made = network.sample([Row(0, 0), Row(0, 1)], Draw(0, [0, 0]), Sampling())
    assert (made[0] != made[1]).any()  # type: ignore[union-attr]
