"""The image metrics equal other implementations of them, and keep their laws."""

from collections.abc import Callable

import numpy as np
import ot
import pytest
import torch
from scipy import linalg, stats
from scipy.spatial.distance import pdist
from skimage.metrics import structural_similarity
from sklearn.metrics import pairwise_distances, pairwise_kernels
from sklearn.neighbors import NearestNeighbors
from torchmetrics.image.fid import FrechetInceptionDistance
from torchmetrics.image.inception import InceptionScore
from torchmetrics.image.kid import KernelInceptionDistance, poly_mmd

from db.errors import NonFinite, Refused
from worker.metrics import classes, distances, diversity, memorisation, samples, transport
from worker.metrics.frechet import frechet_distance
from worker.metrics.kernel import kernel_distance, squared_mmd, subset_distances
from worker.metrics.neighbourhoods import neighbourhoods
from worker.metrics.samples import Features
from worker.metrics.ssim import Pictures, pair_dissimilarities, ssim, ssim_diversity

CLOSE = 1e-6

Two = Callable[[Features, Features], float]


class Same(torch.nn.Module):
    """A feature network for torchmetrics that passes features through."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.num_features = width

    def forward(self, items: torch.Tensor) -> torch.Tensor:
        return items


def distance_names() -> dict[str, Two]:
    return {
        "frechet": frechet_distance,
        "mind": transport.monge_distance,
        "exact": transport.exact_distance,
        "sliced": transport.sliced_distance,
    }


def test_frechet_distance_is_that_of_torchmetrics_and_of_the_matrix_root(
    real: Features, made: Features
) -> None:
    ours = frechet_distance(real, made)
    metric = FrechetInceptionDistance(feature=Same(16), input_img_size=(16,)).set_dtype(
        torch.float64
    )
    metric.update(torch.from_numpy(real), real=True)
    metric.update(torch.from_numpy(made), real=False)
    assert ours == pytest.approx(float(metric.compute()), rel=CLOSE)
    covariances = np.cov(real, rowvar=False), np.cov(made, rowvar=False)
    root = linalg.sqrtm(covariances[0] @ covariances[1]).real
    shift = real.mean(axis=0) - made.mean(axis=0)
    expected = shift @ shift + np.trace(covariances[0] + covariances[1] - 2 * root)
    assert ours == pytest.approx(expected, rel=CLOSE)


def test_frechet_distance_holds_where_covariances_are_singular() -> None:
    real, made = np.random.default_rng(5).standard_normal((2, 20, 64)) + np.array([[[0]], [[1]]])
    shift = real.mean(axis=0) - made.mean(axis=0)
    factors = [(x - x.mean(axis=0)) / np.sqrt(19) for x in (real, made)]
    root = linalg.svdvals(factors[0] @ factors[1].T).sum()  # the trace of (C1 C2)^(1/2)
    expected = shift @ shift + sum(np.square(x).sum() for x in factors) - 2 * root
    assert frechet_distance(real, made) == pytest.approx(expected, rel=CLOSE)


def test_kernel_distance_is_that_of_torchmetrics_and_scikit_learn(
    real: Features, made: Features
) -> None:
    expected = float(poly_mmd(torch.from_numpy(real), torch.from_numpy(made)))
    assert squared_mmd(real, made) == pytest.approx(expected, rel=CLOSE)
    within = [pairwise_kernels(x, metric="poly", degree=3, coef0=1) for x in (real, made)]
    across = pairwise_kernels(real, made, metric="poly", degree=3, coef0=1)
    means = [(k.sum() - np.trace(k)) / (300 * 299) for k in within]
    assert squared_mmd(real, made) == pytest.approx(sum(means) - 2 * across.mean(), rel=CLOSE)


@pytest.mark.filterwarnings("ignore:Metric .* will save all extracted features in buffer")
def test_kernel_distance_of_whole_sets_is_that_of_torchmetrics_module(
    real: Features, made: Features
) -> None:
    metric = KernelInceptionDistance(feature=Same(16), subsets=3, subset_size=300)
    metric.set_dtype(torch.float64)
    metric.update(torch.from_numpy(real), real=True)
    metric.update(torch.from_numpy(made), real=False)
    ours = kernel_distance(real, made, subsets=3)
    assert ours == pytest.approx(float(metric.compute()[0]), rel=CLOSE)


def test_kernel_distance_is_without_bias() -> None:
    same = [squared_mmd(*np.split(gaussian_pair(seed), 2)) for seed in range(200)]
    assert abs(stats.ttest_1samp(same, 0).statistic) < 3


def gaussian_pair(seed: int) -> Features:
    return np.random.default_rng(seed).standard_normal((60, 8))


def test_subsets_are_seeded_and_differ(real: Features, made: Features) -> None:
    first = subset_distances(real, made, subsets=4, subset_size=50, seed=3)
    assert (first == subset_distances(real, made, subsets=4, subset_size=50, seed=3)).all()
    assert len({*first, *subset_distances(real, made, subsets=4, subset_size=50, seed=4)}) == 8


def test_sliced_distances_are_those_of_pot(real: Features, made: Features) -> None:
    directions = transport.random_directions(200, 16, 7)
    squared = ot.sliced_wasserstein_distance(real, made, projections=directions.T, p=2) ** 2
    assert transport.monge_distance(real, made, projections=200, seed=7) == pytest.approx(
        3 * 16 * squared, rel=CLOSE
    )
    absolute = ot.sliced_wasserstein_distance(real, made, projections=directions.T, p=1)
    assert transport.sliced_distance(real, made, projections=200, seed=7) == pytest.approx(
        absolute / transport.mean_projection(16), rel=CLOSE
    )


def test_exact_distance_is_that_of_pot_and_in_one_dimension_of_scipy(
    real: Features, made: Features
) -> None:
    expected = ot.emd2([], [], ot.dist(real, made, metric="euclidean"))
    assert transport.exact_distance(real, made) == pytest.approx(expected, rel=CLOSE)
    expected = stats.wasserstein_distance(real[:, 0], made[:, 0])
    assert transport.exact_distance(real[:, :1], made[:, :1]) == pytest.approx(expected, rel=CLOSE)
    assert transport.sliced_distance(real[:, :1], made[:, :1]) == pytest.approx(expected, rel=CLOSE)


def test_a_shift_costs_its_length_exactly_and_sliced(real: Features) -> None:
    shift = np.full(16, 0.5)
    assert transport.exact_distance(real, real + shift) == pytest.approx(2.0)
    sliced = transport.sliced_distance(real, real + shift, projections=4_000)
    assert sliced == pytest.approx(2.0, rel=0.03)


def test_earth_movers_distance_is_sliced_above_its_limit(
    real: Features, made: Features, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert transport.earth_movers_distance(real, made) == transport.exact_distance(real, made)
    monkeypatch.setattr(transport, "LARGEST_EXACT", 299)
    assert transport.earth_movers_distance(real, made) == transport.sliced_distance(real, made)


def test_neighbourhoods_are_those_of_scikit_learn(real: Features, made: Features) -> None:
    def radius(items: Features, k: int) -> Features:
        return NearestNeighbors(n_neighbors=k + 1).fit(items).kneighbors(items)[0][:, k]

    across = pairwise_distances(real, made)
    held = across <= radius(real, 5)[:, None]
    ours = neighbourhoods(real, made)
    assert (ours.precision == (across <= radius(real, 3)[:, None]).any(axis=0)).all()
    assert (ours.recall == (across <= radius(made, 3)).any(axis=1)).all()
    assert ours.density == pytest.approx(held.sum(axis=0) / 5, rel=CLOSE)
    assert (ours.coverage == held.any(axis=1)).all()


def test_precision_falls_for_noise_and_recall_for_lost_modes(real: Features) -> None:
    shown = neighbourhoods(real, real[:75].repeat(4, axis=0))
    assert shown.precision.all()
    assert shown.recall.mean() < 0.5
    noisy = neighbourhoods(real, real + 9)
    assert not noisy.precision.any()
    assert not noisy.density.any()


def test_blocks_change_nothing(
    real: Features, made: Features, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = neighbourhoods(real, made), frechet_distance(real, made)
    spread = diversity.perceptual_diversity(real), transport.monge_distance(real, made)
    monkeypatch.setattr(samples, "BLOCK_BYTES", 10_000)
    assert frechet_distance(real, made) == pytest.approx(whole[1], rel=1e-9)
    assert diversity.perceptual_diversity(real) == pytest.approx(spread[0], rel=1e-9)
    assert transport.monge_distance(real, made) == pytest.approx(spread[1], rel=1e-9)
    for ours, other in zip(neighbourhoods(real, made), whole[0], strict=True):
        assert (ours == other).all()


@pytest.mark.filterwarnings("ignore:Metric .* will save all extracted features in buffer")
def test_inception_score_is_that_of_torchmetrics_and_scipy() -> None:
    logits = 3 * np.random.default_rng(0).standard_normal((500, 10))
    probabilities = np.exp(logits) / np.exp(logits).sum(axis=1, keepdims=True)
    metric = InceptionScore(feature=Same(10), splits=1).set_dtype(torch.float64)
    metric.update(torch.from_numpy(logits))
    with np.errstate(all="ignore"), pytest.warns(UserWarning, match="degrees of freedom"):
        expected = float(metric.compute()[0])
    assert classes.inception_score(probabilities) == pytest.approx(expected, rel=CLOSE)
    divergence = stats.entropy(probabilities, probabilities.mean(axis=0), axis=1)
    expected = float(np.exp(divergence.mean()))
    assert classes.inception_score(probabilities) == pytest.approx(expected, rel=CLOSE)


def test_inception_score_reaches_from_one_to_the_number_of_classes() -> None:
    assert classes.inception_score(np.eye(10)) == pytest.approx(10)
    assert classes.inception_score(np.full((7, 10), 0.1)) == pytest.approx(1)


def test_class_divergence_is_that_of_scipy() -> None:
    real, made = np.array([0, 0, 1, 2, 2, 2]), np.array([0, 1, 1, 1, 1, 1])
    expected = stats.entropy(np.array([2, 1, 3, 0]) + 0.5, np.array([1, 5, 0, 0]) + 0.5)
    ours = classes.class_divergence(real, made, classes=4, smoothing=0.5)
    assert ours == pytest.approx(expected, rel=CLOSE)
    assert classes.class_divergence(real, real, classes=4) == 0


def test_label_agreement_leaves_out_items_without_a_label() -> None:
    agreeing = classes.label_agreement(np.array([3, -1, 2, 1]), np.array([3, 0, 1, 1]))
    assert agreeing.tolist() == [True, False, True]


def test_diversity_is_that_of_scipy(real: Features) -> None:
    assert diversity.perceptual_diversity(real) == pytest.approx(pdist(real).mean(), rel=CLOSE)
    labels = np.arange(300) % 3
    expected = np.mean([pdist(real[labels == name]).mean() for name in range(3)])
    assert diversity.intra_class_distance(real, labels) == pytest.approx(expected, rel=CLOSE)


def test_feature_entropy_is_that_of_scipy_and_free_of_scale(real: Features) -> None:
    variances = np.square(linalg.svdvals(real - real.mean(axis=0)))
    expected = stats.entropy(variances)
    assert diversity.feature_entropy(real) == pytest.approx(expected, rel=CLOSE)
    assert diversity.feature_entropy(9 * real) == pytest.approx(expected, rel=CLOSE)
    assert diversity.feature_entropy(np.ones((5, 3))) == 0


def test_nearest_is_that_of_scikit_learn_and_zero_for_a_copy(
    real: Features, made: Features
) -> None:
    made = np.vstack([made, real[17]])
    lengths, found = distances.nearest(made, real)
    expected, where = NearestNeighbors(n_neighbors=1).fit(real).kneighbors(made)
    assert lengths == pytest.approx(expected[:, 0], rel=CLOSE)
    assert (found == where[:, 0]).all()
    assert lengths[-1] == 0


def test_copying_probability_is_that_of_the_mann_whitney_test() -> None:
    random = np.random.default_rng(0)
    made, held_out = random.integers(0, 50, 200) / 10, random.integers(5, 60, 300) / 10
    expected = stats.mannwhitneyu(held_out, made).statistic / (200 * 300)
    assert memorisation.copying_probability(made, held_out) == pytest.approx(expected, rel=CLOSE)
    assert memorisation.copying_probability(made, made) == pytest.approx(0.5)


@pytest.mark.parametrize("shape", [(28, 28), (32, 20, 3)])
def test_ssim_is_that_of_scikit_image(shape: tuple[int, ...]) -> None:
    left, right = np.random.default_rng(1).integers(0, 256, (2, 5, *shape), np.uint8)
    left[0] = right[0] // 2
    expected = [
        structural_similarity(
            one,
            other,
            data_range=255,
            gaussian_weights=True,
            sigma=1.5,
            use_sample_covariance=False,
            channel_axis=2 if one.ndim == 3 else None,
        )
        for one, other in zip(left, right, strict=True)
    ]
    assert ssim(left, right) == pytest.approx(expected, rel=CLOSE)


def test_ssim_diversity_compares_each_picture_with_another() -> None:
    pictures = np.random.default_rng(1).integers(0, 256, (40, 16, 16), np.uint8)
    assert len(pair_dissimilarities(pictures)) == 40
    assert ssim_diversity(pictures) > 0.9
    assert ssim_diversity(pictures[:1].repeat(40, axis=0)) == pytest.approx(0)


@pytest.mark.parametrize("name", distance_names())
def test_a_distance_is_zero_at_equality_symmetric_and_blind_to_order(
    name: str, real: Features, made: Features
) -> None:
    distance = distance_names()[name]
    shuffled = real[np.random.default_rng(0).permutation(300)]
    assert distance(real, shuffled) == pytest.approx(0, abs=1e-6)
    assert distance(shuffled, made) == pytest.approx(distance(real, made), rel=CLOSE)
    assert distance(made, real) == pytest.approx(distance(real, made), rel=CLOSE)


@pytest.mark.parametrize("name", distance_names())
def test_a_distance_of_float32_features_is_computed_in_float64(
    name: str, real: Features, made: Features
) -> None:
    distance = distance_names()[name]
    narrow = real.astype(np.float32), made.astype(np.float32)
    wide = narrow[0].astype(np.float64), narrow[1].astype(np.float64)
    assert distance(*narrow) == pytest.approx(distance(*wide), rel=1e-9)


def broken(real: Features) -> Features:
    return np.where(np.arange(16) == 3, np.nan, real)


@pytest.mark.parametrize(
    ("make", "error", "message"),
    [
        (lambda x: frechet_distance(x, x[:, :3]), Refused, "16 columns, made features 3"),
        (lambda x: frechet_distance(x[:1], x), Refused, "1 items needs at least 2"),
        (lambda x: frechet_distance(x, broken(x)), NonFinite, "NaN"),
        (lambda x: transport.exact_distance(x, x[:9]), Refused, "300 real items"),
        (lambda x: neighbourhoods(x[:5], x[:5]), Refused, "5 items needs at least 6"),
        (lambda x: distances.nearest(x[0], x), Refused, "shape"),
        (classes.inception_score, Refused, "sum to 1"),
        (lambda x: classes.class_counts(np.array([0, 10]), classes=10), Refused, "0 and 9"),
        (lambda x: memorisation.copying_probability(x[:0, 0], x[:, 0]), Refused, "0 made"),
    ],
)
def test_unusable_items_are_refused(
    make: Callable[[Features], object], error: type[Exception], message: str, real: Features
) -> None:
    with pytest.raises(error, match=message):
        make(real)


def test_pictures_smaller_than_the_window_are_refused() -> None:
    small: Pictures = np.zeros((2, 8, 30), np.uint8)
    with pytest.raises(Refused, match="30x8 are smaller"):
        ssim(small, small)
