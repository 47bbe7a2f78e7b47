"""The metrics against independent implementations on real data, and what 10,000 images cost.

Features are the leading principal components of MNIST's pixels; texts are lines of Shakespeare with
a word changed; sounds are spoken digits with noise. Run alone by `python -m tests.results.metrics`.
"""

import random
import time
import tracemalloc
from collections.abc import Callable, Iterator
from functools import partial

import numpy as np
import ot
import sacrebleu
from rouge_score.rouge_scorer import RougeScorer
from scipy import linalg, stats
from scipy.spatial.distance import pdist
from skimage.metrics import structural_similarity
from sklearn.metrics import pairwise_distances, pairwise_kernels
from sklearn.neighbors import NearestNeighbors

from tests.planted import altered_text
from tests.results.classifier import read_idx
from tests.results.machine import DATA, Machine, Result
from tests.unit.worker.metrics.test_texts import Spaces
from worker.metrics import classes, distances, diversity, ngrams, sounds, ssim, transport
from worker.metrics.frechet import frechet_distance
from worker.metrics.kernel import kernel_distance, squared_mmd
from worker.metrics.neighbourhoods import neighbourhoods
from worker.metrics.rouge import rouge_l

CLOSE = 1e-6
FEW, MANY = 1000, 10_000  # images: compared with others' code, and measured
COMPONENTS = 64
MOST_S, MOST_MIB = 60, 512  # for all metrics of 10,000 images: CPU seconds, beyond the features

Pair = tuple[float | np.ndarray, float | np.ndarray]  # ours and theirs


def digits() -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Features of MNIST's test part and of as many training digits, and the test pictures."""
    train, test = (
        read_idx(DATA / "mnist" / f"{part}-images-idx3-ubyte.gz") for part in ("train", "t10k")
    )
    flat = train[:20_000].reshape(20_000, -1) / 255.0
    centre = flat.mean(axis=0)
    axes = np.linalg.eigh(np.cov(flat, rowvar=False))[1][:, -COMPONENTS:]
    real, made = (
        ((part[:MANY].reshape(MANY, -1) / 255.0 - centre) @ axes).astype(np.float32)
        for part in (test, train)
    )
    return real, made, test


def of_images(
    real: np.ndarray, made: np.ndarray, pictures: np.ndarray
) -> Iterator[tuple[str, Pair]]:
    """Metrics of features and pictures beside those of scipy, scikit-learn, POT, scikit-image."""
    real, made = real.astype(np.float64), made.astype(np.float64)
    covariances = [np.cov(each, rowvar=False) for each in (real, made)]
    shift = real.mean(axis=0) - made.mean(axis=0)
    root = np.trace(linalg.sqrtm(covariances[0] @ covariances[1]).real)
    expected = shift @ shift + np.trace(covariances[0] + covariances[1]) - 2 * root
    yield "fid (scipy)", (frechet_distance(real, made), expected)
    poly = partial(pairwise_kernels, metric="poly", degree=3, coef0=1)
    within = sum((k.sum() - np.trace(k)) / (FEW * (FEW - 1)) for k in (poly(real), poly(made)))
    yield "kid (scikit-learn)", (squared_mmd(real, made), within - 2 * poly(real, made).mean())
    directions = transport.random_directions(transport.PROJECTIONS, COMPONENTS, 0)
    squared = ot.sliced_wasserstein_distance(real, made, projections=directions.T, p=2) ** 2
    yield "mind (POT)", (transport.monge_distance(real, made), 3 * COMPONENTS * squared)
    exact = ot.emd2([], [], ot.dist(real, made, metric="euclidean"))
    yield "emd (POT)", (transport.exact_distance(real, made), exact)
    yield from _of_neighbours(real, made)
    yield "perceptual_diversity (scipy)", (diversity.perceptual_diversity(made), pdist(made).mean())
    variances = np.square(linalg.svdvals(made - made.mean(axis=0)))
    yield "feature_entropy (scipy)", (diversity.feature_entropy(made), stats.entropy(variances))
    soft = np.exp(made[:, -10:]) / np.exp(made[:, -10:]).sum(axis=1, keepdims=True)
    score = np.exp(stats.entropy(soft, soft.mean(axis=0), axis=1).mean())
    yield "inception_score (scipy)", (classes.inception_score(soft), score)
    left, right = pictures[:200], pictures[200:400]
    like = partial(
        structural_similarity,
        data_range=255,
        gaussian_weights=True,
        sigma=1.5,
        use_sample_covariance=False,
    )
    yield "ssim (scikit-image)", (ssim.ssim(left, right), np.array(list(map(like, left, right))))


def _of_neighbours(real: np.ndarray, made: np.ndarray) -> Iterator[tuple[str, Pair]]:
    def radius(items: np.ndarray, k: int) -> np.ndarray:
        return NearestNeighbors(n_neighbors=k + 1).fit(items).kneighbors(items)[0][:, k]

    across, ours = pairwise_distances(real, made), neighbourhoods(real, made)
    held = across <= radius(real, 5)[:, None]
    expected = {
        "precision": (across <= radius(real, 3)[:, None]).any(axis=0),
        "recall": (across <= radius(made, 3)).any(axis=1),
        "density": held.sum(axis=0) / 5,
        "coverage": held.any(axis=1),
    }
    for name, theirs in expected.items():
        yield f"{name} (scikit-learn)", (np.mean(getattr(ours, name)), theirs.mean())
    nearest = NearestNeighbors(n_neighbors=1).fit(real).kneighbors(made)[0][:, 0]
    yield "nearest (scikit-learn)", (distances.nearest(made, real)[0], nearest)


def of_texts() -> Iterator[tuple[str, Pair]]:
    """Likeness of lines of Shakespeare to lines in which a word is changed."""
    text = (DATA / "tinyshakespeare.txt").read_text("utf-8")
    lines = [" ".join(line.split()) for line in text.splitlines() if len(line) > 30][:500]
    chance = random.Random(0)
    made = [" ".join(altered_text(line, chance, text.split()).split()) for line in lines]
    pairs = [(one.split(), other.split()) for one, other in zip(made, lines, strict=True)]
    rows = np.array([ngrams.bleu_counts(*pair) for pair in pairs])
    theirs = sacrebleu.corpus_bleu(made, [lines], tokenize="none", force=True).score
    yield "bleu (sacrebleu)", (ngrams.bleu(rows), theirs)
    rows = np.array([ngrams.chrf_counts(*pair) for pair in zip(made, lines, strict=True)])
    yield "chrf (sacrebleu)", (ngrams.chrf(rows), sacrebleu.corpus_chrf(made, [lines]).score)
    scorer = RougeScorer(["rougeL"], tokenizer=Spaces())
    scores = [
        scorer.score(other, one)["rougeL"].fmeasure for one, other in zip(made, lines, strict=True)
    ]
    yield "rouge_l (rouge-score)", (np.array([rouge_l(*pair) for pair in pairs]), np.array(scores))


def of_sounds() -> Iterator[tuple[str, Pair]]:
    """Spectra of noise of two loudnesses: the distance in each bin by scipy."""
    noise = np.random.default_rng(0).standard_normal((2, 100, 4000)) * [[[0.1]], [[0.2]]]
    real, made = (np.array([sounds.spectrum(wave) for wave in waves]) for waves in noise)
    gaps = [stats.wasserstein_distance(*pair) for pair in zip(real.T, made.T, strict=True)]
    ends = np.cumsum([frame // 2 + 1 for frame in sounds.FRAMES])[:-1]
    expected = np.mean([part.mean() for part in np.split(np.array(gaps), ends)])
    yield "spectral_distance (scipy)", (sounds.spectral_distance(real, made), expected)


def _difference(pair: Pair) -> float:
    """The largest relative difference."""
    ours, theirs = (np.atleast_1d(np.asarray(each, np.float64)) for each in pair)
    return float((np.abs(ours - theirs) / np.maximum(np.abs(theirs), 1e-12)).max())


def _cost(work: Callable[[], object]) -> tuple[float, float]:
    """The CPU seconds and the MiB that a metric takes; memory is measured in a run of its own."""
    start = time.process_time()
    work()
    seconds = time.process_time() - start
    tracemalloc.start()
    work()
    peak = tracemalloc.get_traced_memory()[1] / 2**20
    tracemalloc.stop()
    return seconds, peak


def metrics_and_others(_: Machine | None = None) -> list[Result]:
    """How far from other code, and what 10,000 images cost; none needs a machine."""
    real, made, pictures = digits()
    found = [
        *of_images(real[:FEW], made[:FEW], pictures),
        *of_texts(),
        *of_sounds(),
    ]
    apart = {name: _difference(pair) for name, pair in found}
    worst = max(apart, key=lambda name: apart[name])
    works = {
        "fid": partial(frechet_distance, real, made),
        "kid": partial(kernel_distance, real, made),
        "mind": partial(transport.monge_distance, real, made),
        "emd": partial(transport.earth_movers_distance, real, made),
        "precision, recall, density, coverage": partial(neighbourhoods, real, made),
        "nearest": partial(distances.nearest, made, real),
        "perceptual_diversity": partial(diversity.perceptual_diversity, made),
        "ssim_diversity": partial(ssim.ssim_diversity, pictures),
    }
    costs = {name: _cost(work) for name, work in works.items()}
    seconds, peak = sum(each[0] for each in costs.values()), max(each[1] for each in costs.values())
    told = ", ".join(f"{name} {cost[0]:.1f} s {cost[1]:.0f} MiB" for name, cost in costs.items())
    return [
        Result(
            f"metrics: the largest relative difference from {len(apart)} other implementations",
            f"{apart[worst]:.1e}, of {worst}",
            f"<= {CLOSE:g}",
            apart[worst] <= CLOSE,
        ),
        Result(
            f"metrics: {MANY:,} images, {COMPONENTS} features: {told}",
            f"{seconds:.0f} CPU s together, {peak:.0f} MiB at most",
            f"<= {MOST_S} s, {MOST_MIB} MiB",
            seconds <= MOST_S and peak <= MOST_MIB,
        ),
    ]


if __name__ == "__main__":
    for row in metrics_and_others():
        print(f"{row.case}: {row.figure} ({row.bound}) {'ok' if row.kept else 'MISS'}", flush=True)
