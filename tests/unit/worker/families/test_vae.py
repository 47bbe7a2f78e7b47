import math

import numpy as np
import pytest
import torch
from torch import Tensor

from db.errors import Refused
from worker.data.dataset import Shape
from worker.families.vae import Params, Sampling
from worker.families.vae.bounds import (
    importance_bound,
    kl_to_prior,
    log_normal,
    log_weight,
    with_free_bits,
)
from worker.families.vae.likelihoods import Bernoulli, DiscretisedLogistic
from worker.families.vae.model import Vae
from worker.families.vae.modes import spherical
from worker.networks.network import Batch, Clock, Draw, Row, SourceImage
from worker.specs import parse_params


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
    return Batch(data, torch.arange(6) % 2 if shape.labels else None, Draw([(0, 0)]))


def sampling(**given: object) -> Sampling:
    return parse_params(Sampling, given, what="vae")


def picture(seed: int = 0, size: int = 28, label: int | None = 0) -> SourceImage:
    levels = np.random.default_rng(seed).integers(0, 256, (size, size, 1), dtype=np.uint8)
    return SourceImage(levels, label)


def made(network: Vae, rows: list[Row], settings: Sampling, seed: int = 0) -> np.ndarray:
    with torch.inference_mode():
        draw = Draw([(seed, row.index) for row in rows])
        return np.stack([np.asarray(each) for each in network.eval().sample(rows, draw, settings)])


@pytest.mark.parametrize("arch", ["conv", "mlp"])
@pytest.mark.parametrize(
    ("size", "channels", "labels"), [(28, 1, ("a", "b")), (32, 3, ()), (64, 3, ("a", "b"))]
)
def test_network_fits_the_data_s_size(
    size: int, channels: int, labels: tuple[str, ...], arch: str
) -> None:
    network = vae(size, channels, labels, arch=arch)
    losses = network.train_step(batch(network), network.optimizers(), Clock())
    assert all(torch.isfinite(value) for value in losses.values())
    rows = [Row(index, 0 if labels else None) for index in range(3)]
    assert made(network, rows, Sampling()).shape == (3, size, size, channels)


def test_loss_is_distortion_and_rate_in_nats() -> None:
    network = vae().eval()
    with torch.no_grad():
        for parameter in network.parameters():
            parameter.zero_()  # a code equal to the prior, and every pixel even odds
        network.end_training()
        losses = network.validate(batch(network))
    assert float(losses["rate"]) == 0
    assert float(losses["distortion"]) == pytest.approx(28 * 28 * math.log(2), rel=1e-3)
    assert float(losses["loss"]) == pytest.approx(float(losses["distortion"]))
    assert float(losses["iwae"]) == pytest.approx(float(losses["loss"]), rel=1e-5)


def test_kl_term_warms_up_to_its_full_weight() -> None:
    cold, half, warm = (
        _gradient(vae(warm_up=0.2, lr=1e-9), Clock(0, progress)) for progress in (0.0, 0.1, 0.2)
    )
    assert torch.allclose(2 * half, cold + warm, atol=1e-3)
    assert not torch.allclose(cold, warm, atol=1e-3)


def test_greater_beta_keeps_the_code_nearer_to_the_prior() -> None:
    assert _rate_after_training(beta=20.0) < _rate_after_training(beta=0.0)


def test_free_bits_let_the_code_carry_what_beta_would_take_away() -> None:
    starved = _rate_after_training(beta=20.0, steps=60)
    spared = _rate_after_training(beta=20.0, steps=60, free_bits=0.5)
    assert spared > 2 * starved


def test_free_bits_leave_a_code_s_number_alone_below_them() -> None:
    kl = torch.tensor([[0.1, 3.0], [0.3, 1.0]], requires_grad=True)
    loss = with_free_bits(kl, 0.5)
    loss.backward()
    assert float(loss.detach()) == pytest.approx(0.5 + 2.0)
    assert kl.grad is not None
    assert kl.grad.tolist() == [[0.0, 0.5], [0.0, 0.5]]


def test_kl_to_the_prior_is_what_samples_say() -> None:
    mean, log_variance = torch.tensor([[0.7, -1.0]]), torch.tensor([[0.3, -0.8]])
    draw = Draw([(0, 0)]).normal(200_000, 2)[0]
    code = mean + draw * torch.exp(0.5 * log_variance)
    zero = torch.zeros_like(code)
    gap = log_normal(code, mean, log_variance) - log_normal(code, zero, zero)
    expected = float(kl_to_prior(mean, log_variance).sum())
    assert float(gap.mean()) == pytest.approx(expected, abs=0.01)


# x = z + e with z and e standard normal: p(x) is N(0, 2), and p(z|x) is N(x / 2, 1 / 2)
X = torch.tensor([0.4, -1.3, 2.0])
EVIDENCE = -0.5 * (X.square() / 2 + math.log(2) + math.log(2 * math.pi))


def toy_bound(count: int, shift: float, log_variance: float) -> Tensor:
    """The importance bound of `X`, whose posterior is off by `shift`, over 4,000 repetitions."""
    mean = (X / 2 + shift).repeat(4000)[:, None]  # (12000, 1)
    spread = torch.full_like(mean, log_variance)
    noise = Draw([(1, 0)]).normal(count, len(mean), 1)[0]
    weights = []
    for each in noise:
        code = mean + each * torch.exp(0.5 * spread)
        seen = X.repeat(4000)[:, None]
        likely = log_normal(seen, code, torch.zeros_like(code))
        weights.append(log_weight(likely, code, mean, spread))
    return importance_bound(torch.stack(weights)).reshape(4000, 3).mean(0)


def test_bound_is_the_evidence_where_the_posterior_is_exact() -> None:
    for count in (1, 5):
        found = toy_bound(count, 0.0, math.log(0.5))
        assert torch.allclose(found, EVIDENCE, atol=1e-3)


def test_bound_of_one_code_is_the_evidence_less_the_posterior_s_divergence() -> None:
    shift, variance = 0.6, 1.0
    divergence = 0.5 * (variance / 0.5 + shift**2 / 0.5 - 1 - math.log(variance / 0.5))
    found = toy_bound(1, shift, math.log(variance))
    assert torch.allclose(found, EVIDENCE - divergence, atol=0.05)


def test_bound_grows_with_the_number_of_codes_and_stays_below_the_evidence() -> None:
    gaps = [EVIDENCE - toy_bound(count, 0.6, 0.0) for count in (1, 3, 30)]
    assert bool((gaps[0] > gaps[1] + 0.1).all())
    assert bool((gaps[1] > gaps[2] + 0.02).all())
    assert bool((gaps[2] > -0.01).all())


def test_validation_s_importance_bound_is_tighter_than_its_elbo() -> None:
    network = vae(iwae_samples=20, binarise="stochastic").eval()
    with torch.inference_mode():
        along_the_way = network.validate(batch(network))
        network.end_training()
        losses = network.validate(batch(network))
    assert set(losses) - set(along_the_way) == {"iwae"}
    assert float(losses["iwae"]) < float(losses["loss"]) - 0.01


def test_logistic_chances_of_a_pixel_s_levels_sum_to_one() -> None:
    levels = torch.arange(256).reshape(256, 1, 1, 1) / 127.5 - 1
    for scale, mean in ((-6.0, 0.3), (-1.0, -1.4), (-3.0, 0.5)):
        likelihood = DiscretisedLogistic(1)
        with torch.no_grad():
            likelihood.log_scale.fill_(scale)
            chances = likelihood.log_prob(torch.full_like(levels, mean), levels).exp()
        assert float(chances.sum()) == pytest.approx(1, abs=1e-4)
        assert int(chances.argmax()) == round(min(max((mean + 1) * 127.5, 0), 255))


def test_logistic_scale_learns_how_far_off_the_decoder_is() -> None:
    likelihood = DiscretisedLogistic(1)
    draw = Draw([(0, 0)]).uniform(64, 1, 8, 8)[0]
    noise = 0.1 * torch.log(draw.clamp(1e-6) / (1 - draw))  # logistic, of scale 0.1
    images = ((noise + 1) * 127.5).round().clamp(0, 255) / 127.5 - 1
    optimizer = torch.optim.Adam(likelihood.parameters(), lr=0.1)
    for _ in range(60):
        optimizer.zero_grad()
        (-likelihood.log_prob(torch.zeros_like(images), images).mean()).backward()  # type: ignore[no-untyped-call]
        optimizer.step()
    assert float(likelihood.log_scale.detach().exp()) == pytest.approx(0.1, rel=0.1)


@pytest.mark.parametrize("likelihood", [Bernoulli(binary=True), DiscretisedLogistic(1)])
def test_pixels_are_drawn_as_they_are_likely(likelihood: Bernoulli | DiscretisedLogistic) -> None:
    logit = torch.full((1, 1, 200, 200), 0.3)
    with torch.no_grad():
        drawn = likelihood.draw(logit, Draw([(0, 0)]).uniform(1, 200, 200))
        levels = torch.tensor([-1.0, 1.0]).reshape(2, 1, 1, 1)
        ends = likelihood.log_prob(logit[..., :1, :1].expand(2, 1, 1, 1), levels).exp()
    shares = [float((drawn == level).float().mean()) for level in (-1, 1)]
    assert shares == pytest.approx(ends.tolist(), abs=0.01)


def test_binarised_pixels_are_drawn_by_their_brightness_and_the_same_each_time() -> None:
    network = vae(binarise="stochastic", labels=())
    grey = Batch(torch.full((40, 1, 28, 28), 0.4), None, Draw([(3, 0)]))  # seven tenths bright
    seen = network._observe(grey)
    assert set(seen.unique().tolist()) == {-1.0, 1.0}
    assert float((seen > 0).float().mean()) == pytest.approx(0.7, abs=0.01)
    assert torch.equal(seen, network._observe(grey))
    other = network._observe(Batch(grey.data, None, Draw([(3, 1)])))
    assert not torch.equal(seen, other)


def test_threshold_binarises_at_a_half() -> None:
    network = vae(binarise="threshold", labels=())
    data = torch.tensor([-1.0, -0.1, 0.1, 1.0]).reshape(4, 1, 1, 1)
    assert network._observe(Batch(data, None, Draw([(0, 0)]))).flatten().tolist() == [-1, -1, 1, 1]


def test_binarised_pixels_by_a_logistic_are_refused() -> None:
    with pytest.raises(Refused, match="binarised pixels need likelihood=bernoulli"):
        parse_params(Params, {"binarise": "threshold", "likelihood": "logistic"}, what="vae")


def test_encoder_waits_for_the_first_third_of_a_fine_tuning() -> None:
    network = vae(warm_up=0.5)
    network.begin_finetuning()
    optimizers = network.optimizers()
    before = {name: value.clone() for name, value in network.state_dict().items()}

    def moved(progress: float) -> set[str]:
        network.train_step(batch(network), optimizers, Clock(0, progress))
        now = network.state_dict()
        return {name.split(".")[0] for name in before if not torch.equal(before[name], now[name])}

    assert moved(0.3) == {"decoder"}
    assert moved(0.4) == {"encoder", "decoder"}


def test_network_without_labels_takes_no_class_though_the_data_has_them() -> None:
    network = vae(labels=())
    assert made(network, [Row(0, None)], Sampling()).shape == (1, 28, 28, 1)
    assert network.one_hot(torch.tensor([1])) is None


def test_label_decides_what_is_made_of_a_code() -> None:
    network = vae()
    first, _ = made(network, [Row(0, 0), Row(1, 1)], Sampling())
    _, second = made(network, [Row(1, 0), Row(0, 1)], Sampling())
    assert (first != second).any()


def test_way_between_two_codes_keeps_their_length() -> None:
    start, stop = Draw([(0, 0)]).normal(2, 5, 32)[0]
    start, stop = (8 * each / each.norm(dim=1, keepdim=True) for each in (start, stop))
    half = spherical(start, stop, torch.full((5, 1), 0.5))
    assert torch.allclose(half.norm(dim=1), torch.full((5,), 8.0), atol=1e-4)
    assert torch.allclose(spherical(start, stop, torch.zeros(5, 1)), start, atol=1e-5)
    assert torch.allclose(spherical(start, start, torch.full((5, 1), 0.5)), start, atol=1e-5)


def test_interpolation_goes_on_from_end_to_end_and_depends_on_its_pair_alone() -> None:
    network, settings = vae(labels=()), sampling(mode="interpolate", steps=4)
    way = made(network, [Row(index) for index in range(8)], settings)
    assert (way[0] != way[3]).any()
    assert (way[3] != way[4]).any()
    again = made(network, [Row(index) for index in (6, 5, 1)], settings)
    assert (again == way[[6, 5, 1]]).all()
    assert (made(network, [Row(6)], settings, seed=1) != way[6]).any()
    distance = np.abs(way[:4].astype(float) - way[0]).mean((1, 2, 3))
    assert (np.diff(distance) > 0).all()


def test_interpolation_between_given_images_ends_at_their_reconstructions() -> None:
    network, ends = vae(), (picture(0, label=0), picture(1, label=1))
    settings = sampling(mode="interpolate", steps=3)
    rows = [Row(index, None, sources=ends) for index in range(3)]
    way = made(network, rows, settings)
    rebuilt = made(network, [Row(9, sources=(end,)) for end in ends], sampling(mode="reconstruct"))
    assert np.abs(way[[0, 2]].astype(int) - rebuilt).max() <= 1
    assert (way[1] != way[0]).any()


def test_reconstruction_depends_on_the_given_image_alone() -> None:
    network, settings = vae(), sampling(mode="reconstruct")
    one, same = made(
        network, [Row(0, sources=(picture(),)), Row(5, sources=(picture(),))], settings, seed=9
    )
    assert (one == same).all()
    assert (made(network, [Row(0, sources=(picture(1),))], settings)[0] != one).any()


@pytest.mark.parametrize("binarise", ["none", "stochastic"])
def test_inpainting_keeps_every_known_pixel_and_fills_the_mask(binarise: str) -> None:
    network = vae(labels=(), binarise=binarise)
    settings = sampling(mode="inpaint", mask=[4, 10, 20, 28], rounds=3)
    one, other = made(network, [Row(index, sources=(picture(),)) for index in (0, 1)], settings)
    masked = np.zeros((28, 28), dtype=bool)
    masked[10:28, 4:20] = True
    assert (one[~masked] == picture().pixels[~masked]).all()
    assert (one[masked] != picture().pixels[masked]).mean() > 0.9
    assert (one[masked] != other[masked]).any(), "each sample fills it in its own way"


@pytest.mark.parametrize(
    ("settings", "complaint"),
    [
        ({"mode": "inpaint"}, "needs mask="),
        ({"mode": "inpaint", "mask": [8, 0, 8, 4]}, "left < right and top < bottom"),
        ({"mode": "inpaint", "mask": [0, 0, 4]}, "mask"),
        ({"mode": "dream"}, "mode"),
    ],
)
def test_settings_that_make_no_sense_are_refused(
    settings: dict[str, object], complaint: str
) -> None:
    with pytest.raises(Refused, match=complaint):
        sampling(**settings)


def test_modes_say_what_images_they_need() -> None:
    with pytest.raises(Refused, match="name them with --dataset"):
        sampling(mode="reconstruct").check_images(None)
    with pytest.raises(Refused, match="mode=sample takes no images"):
        sampling().check_images(28)
    inpaint = sampling(mode="inpaint", mask=[0, 0, 28, 29])
    with pytest.raises(Refused, match=r"extends beyond the images of 28x28"):
        inpaint.check_images(28)
    inpaint.check_images(29)
    sampling(mode="interpolate").check_images(None)


def _gradient(network: Vae, clock: Clock) -> Tensor:
    network.train_step(batch(network), network.optimizers(), clock)
    gradient = network.encoder.code.weight.grad
    assert gradient is not None
    return gradient


def _rate_after_training(steps: int = 20, **given: object) -> float:
    network = vae(warm_up=0, lr=1e-2, **given)
    optimizers = network.optimizers()
    for step in range(steps):
        losses = network.train_step(batch(network), optimizers, Clock(step + 100))
    return float(losses["rate"])
