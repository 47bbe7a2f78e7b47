"""How often the gate is wrong: 200 comparisons of equals, 100 of a version that is truly better.

Each is made on real data whose truth is known. Equals are judged at a margin of 0, where mistakes
are likeliest. The better version is better by twice the margin, which is what `MARGIN_SDS` standard
deviations of the difference are worth. Run alone by `python -m tests.results.gate`.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import cached_property, partial

import numpy as np

from tests.results.classifier import read_idx
from tests.results.machine import DATA, Machine, Result
from worker.gate.decide import decide
from worker.gate.differences import difference
from worker.gate.items import Items
from worker.gate.policy import Policy
from worker.metrics.catalogue import badness
from worker.metrics.frechet import frechet_distance
from worker.metrics.kernel import squared_mmd
from worker.metrics.neighbourhoods import neighbourhoods
from worker.metrics.transport import monge_distance

EQUAL, BETTER, PILOT = 200, 100, 20
DRAWS = 6  # pairs of samples whose mean number counts as the true one
RESAMPLES = 200
MARGIN_SDS = 3.5
COMPONENTS = 32
SIGMA = 0.6  # of the noise on the poorer version's pictures
PICTURES = 2000
DOCUMENTS, CHARACTERS = 400, 120

Pair = tuple[Items, Items]  # candidate and champion
Pairs = Callable[[int], Pair]


@dataclass(frozen=True)
class Case:
    """A metric, and pairs of versions by seed that truly differ by a gain: `pairs(gain)(seed)`."""

    metric: str
    size: str
    pairs: Callable[[float], Pairs]


def digit_pictures() -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """MNIST's training and test part: the pictures' leading principal components, and labels."""
    axes = centre = None
    for part in ("train", "t10k"):
        pixels = read_idx(DATA / "mnist" / f"{part}-images-idx3-ubyte.gz")
        flat = pixels.reshape(len(pixels), -1).astype(np.float32) / 255
        if axes is None:
            centre = flat.mean(axis=0)
            axes = np.linalg.eigh(np.cov(flat[:20_000], rowvar=False))[1][:, -COMPONENTS:]
        labels = read_idx(DATA / "mnist" / f"{part}-labels-idx1-ubyte.gz").astype(np.int64)
        yield ((flat - centre) @ axes).astype(np.float32), labels


class Digits:
    """Versions that make MNIST's training digits with noise; the better one adds less of it."""

    @cached_property
    def parts(self) -> list[tuple[np.ndarray, np.ndarray]]:
        return list(digit_pictures())

    def of_features(self, metric: str) -> Callable[[float], Pairs]:
        """Two disjoint samples; the same real ones for both."""
        return lambda gain: partial(
            self._of_features, metric=metric, sigmas=(self._sigma(metric, gain), SIGMA)
        )

    def agreement(self, gain: float) -> Pairs:
        """Two samples of equally many of each digit, judged by the nearest class mean."""
        return partial(self._agreement, sigmas=(self._agreement_sigma(gain), 2 * SIGMA))

    def _of_features(self, seed: int, metric: str, sigmas: tuple[float, float]) -> Pair:
        random = np.random.default_rng([1, seed])
        (train, _), (test, _) = self.parts
        chosen = random.permutation(len(train))[: 2 * PICTURES]
        real = test[random.permutation(len(test))[:PICTURES]]
        return _both(
            metric,
            (
                {"made_features": self._made(train[rows], random, sigma), "real_features": real}
                for rows, sigma in zip(np.split(chosen, 2), sigmas, strict=True)
            ),
        )

    def _agreement(self, seed: int, sigmas: tuple[float, float]) -> Pair:
        random = np.random.default_rng([2, seed])
        train, labels = self.parts[0]
        asked = np.arange(PICTURES) % 10
        pools = [random.permutation(np.flatnonzero(labels == digit)) for digit in range(10)]
        chosen = [np.stack([pool[i::2][: PICTURES // 10] for pool in pools], 1) for i in (0, 1)]
        return _both(
            "label_agreement",
            (
                {
                    "made_labels": asked,
                    "made_probabilities": self._judged(
                        self._made(train[rows.ravel()], random, sigma)
                    ),
                }
                for rows, sigma in zip(chosen, sigmas, strict=True)
            ),
        )

    def _sigma(self, metric: str, gain: float) -> float:
        """The noise at which a number is better by `gain`: the mean of it over `DRAWS` samples."""

        def number(sigma: float) -> float:
            pairs = (self._of_features(seed, metric, (sigma, sigma)) for seed in range(DRAWS))
            values = [each.numbers[metric]["value"] for pair in pairs for each in pair]
            return badness(metric, float(np.mean(values)), None)

        return solve(lambda sigma: number(SIGMA) - number(sigma), gain, SIGMA)

    def _agreement_sigma(self, gain: float) -> float:
        """The noise at which the share of rightly judged pictures is more by `gain`."""
        train, labels = self.parts[0]
        balanced = np.concatenate([np.flatnonzero(labels == digit)[:5000] for digit in range(10)])

        def share(sigma: float) -> float:
            made = self._made(train[balanced], np.random.default_rng(3), sigma)
            return float((self._judged(made).argmax(1) == labels[balanced]).mean())

        return solve(lambda sigma: share(sigma) - share(2 * SIGMA), gain, 2 * SIGMA)

    @cached_property
    def means(self) -> np.ndarray:
        test, labels = self.parts[1]
        return np.stack([test[labels == digit].mean(axis=0) for digit in range(10)])

    def _judged(self, features: np.ndarray) -> np.ndarray:
        nearest = ((features[:, None] - self.means) ** 2).sum(axis=2).argmin(axis=1)
        return np.eye(10, dtype=np.float32)[nearest]

    @staticmethod
    def _made(features: np.ndarray, random: np.random.Generator, sigma: float) -> np.ndarray:
        noise = random.standard_normal(features.shape, dtype=np.float32)
        return (features + sigma * noise).astype(np.float32)


class Verses:
    """Character models of Shakespeare; the better one mixes more of the trigrams in.

    Equals are two bigram models of which each document's losses are swapped by a coin, so that
    neither can be better.
    """

    @cached_property
    def probabilities(self) -> list[np.ndarray]:
        """Of each held-out character by two bigram models and a trigram model, by document."""
        text = (DATA / "tinyshakespeare.txt").read_text()
        codes = np.unique(list(text), return_inverse=True)[1]
        half = len(codes) // 2
        learnt = [codes[: half // 2], codes[half // 2 : half], codes[:half]]
        held_out = codes[half : half + (half // CHARACTERS) * CHARACTERS]
        found = [_ngram(*each, held_out) for each in zip(learnt, (2, 2, 3), strict=True)]
        return [each.reshape(-1, CHARACTERS) for each in found]

    def loss(self, gain: float) -> Pairs:
        """Both models' losses of the same documents."""
        one, other, _ = self.probabilities
        both = (self._mixed(self._share(gain)), one) if gain else (one, other)
        losses = [-np.log(each).sum(axis=1) for each in both]
        return partial(self._loss, losses=losses, swap=not gain)

    def _loss(self, seed: int, losses: list[np.ndarray], *, swap: bool) -> Pair:
        random = np.random.default_rng([4, seed])
        chosen = random.permutation(len(losses[0]))[:DOCUMENTS]
        swapped = swap & (random.random(DOCUMENTS) < 0.5)
        ours, theirs = losses[0][chosen], losses[1][chosen]
        tokens = np.full(DOCUMENTS, CHARACTERS)
        both = (np.where(swapped, *each) for each in ((theirs, ours), (ours, theirs)))
        cut = {"tokens": tokens, "tokenizer_sha256": np.zeros(32, np.uint8)}
        return _both("loss", ({"nll": nll, **cut} for nll in both))

    def _mixed(self, share: float) -> np.ndarray:
        one, _, trigrams = self.probabilities
        return (1 - share) * one + share * trigrams

    def _share(self, gain: float) -> float:
        """How much of the trigrams lowers the loss over all documents by `gain`."""
        plain = -np.log(self.probabilities[0]).mean()
        return solve(lambda share: plain + np.log(self._mixed(share)).mean(), gain, 0, 0.5)


def _both(metric: str, arrays: Iterator[dict[str, np.ndarray]]) -> Pair:
    """Two evaluations with their number, as evaluations compute it."""
    candidate, champion = (
        Items(each, {metric: {"value": float(NUMBERS[metric](each)), "real": None}})
        for each in arrays
    )
    return candidate, champion


def _of_features(
    distance: Callable[[np.ndarray, np.ndarray], float],
) -> Callable[[dict[str, np.ndarray]], float]:
    return lambda arrays: distance(arrays["real_features"], arrays["made_features"])


NUMBERS: dict[str, Callable[[dict[str, np.ndarray]], float]] = {
    "fid": _of_features(frechet_distance),
    "kid": _of_features(squared_mmd),
    "mind": _of_features(monge_distance),
    "precision": _of_features(lambda real, made: neighbourhoods(real, made).precision.mean()),
    "label_agreement": lambda arrays: (
        arrays["made_probabilities"].argmax(axis=1) == arrays["made_labels"]
    ).mean(),
    "loss": lambda arrays: arrays["nll"].sum() / arrays["tokens"].sum(),
}


def _ngram(learnt: np.ndarray, order: int, text: np.ndarray) -> np.ndarray:
    """The probability of each character of `text`, with 0.1 added to each count."""
    size = int(max(learnt.max(), text.max())) + 1
    weights = size ** np.arange(order)

    def contexts(codes: np.ndarray) -> np.ndarray:
        padded = np.concatenate([np.zeros(order - 1, np.int64), codes])
        return np.lib.stride_tricks.sliding_window_view(padded, order) @ weights[::-1]

    counts = np.bincount(contexts(learnt), minlength=size**order).reshape(-1, size) + 0.1
    return (counts / counts.sum(axis=1, keepdims=True)).ravel()[contexts(text)]


def solve(gain_at: Callable[[float], float], gain: float, start: float, end: float = 0) -> float:
    """Where between `start`, without a gain, and `end`, with the most, the gain is `gain`."""
    low, high = start, end
    if not gain:
        return start
    for _ in range(12):
        middle = (low + high) / 2
        low, high = (middle, high) if gain_at(middle) < gain else (low, middle)
    return (low + high) / 2


def judge_case(case: Case, *, equal: int = EQUAL, better: int = BETTER) -> list[Result]:
    """The gate's two kinds of mistakes on one metric."""
    equals = case.pairs(0.0)
    pilot = (equals(10_000 + seed) for seed in range(PILOT))
    sds = [difference(case.metric, *pair, resamples=RESAMPLES, seed=0).sd for pair in pilot]
    margin = MARGIN_SDS * float(np.mean(sds))
    apart = case.pairs(2 * margin)
    wrong = sum(
        decide(*equals(seed), _policy(case.metric, 0.0, seed)).promoted for seed in range(equal)
    )
    right = sum(
        decide(*apart(seed), _policy(case.metric, margin, seed)).promoted for seed in range(better)
    )
    at_most, at_least = equal // 20, better * 4 // 5
    about = f"{case.metric}, {case.size}"
    return [
        Result(
            f"gate: equals called better, {about}, seeds 0 to {equal - 1}",
            f"{wrong} of {equal}",
            f"<= {at_most}",
            wrong <= at_most,
        ),
        Result(
            f"gate: better by twice the margin of {margin:.3g} and promoted, {about}, "
            f"seeds 0 to {better - 1}",
            f"{right} of {better}",
            f">= {at_least}",
            right >= at_least,
        ),
    ]


def _policy(metric: str, margin: float, seed: int) -> Policy:
    rule = {"metric": metric, "margin": margin}
    return Policy.model_validate({"primary": rule, "resamples": RESAMPLES, "seed": seed})


def gate_on_equals_and_better(_: Machine | None = None) -> list[Result]:
    """All cases; none needs a machine."""
    digits, verses = Digits(), Verses()
    cases = (
        *(
            Case(metric, f"{PICTURES} pictures of each", digits.of_features(metric))
            for metric in ("fid", "kid", "mind", "precision")
        ),
        Case("label_agreement", f"{PICTURES} pictures of each", digits.agreement),
        Case("loss", f"{DOCUMENTS} documents", verses.loss),
    )
    return [row for case in cases for row in judge_case(case)]


if __name__ == "__main__":
    for row in gate_on_equals_and_better():
        print(f"{row.case}: {row.figure} ({row.bound}) {'ok' if row.kept else 'MISS'}", flush=True)
