"""Every number of an evaluation: of which media, which direction is better, and what it means."""

from dataclasses import dataclass

from worker.metrics.frechet import FEWEST_ITEMS
from worker.metrics.neighbourhoods import DENSITY_K

LOWER, HIGHER = "lower", "higher"
CLOSER = "closer"  # to real data's own value, as too much is no better than too little


@dataclass(frozen=True)
class Metric:
    """One number of an evaluation."""

    media: tuple[str, ...]  # that it is measured of
    better: str  # LOWER | HIGHER | CLOSER
    meaning: str  # in a line
    fewest: int = 1  # items that it takes
    is_share: bool = False  # between 0 and 1


_PICTURES = ("image", "audio")  # sounds are looked at as spectrograms
_TEXT, _IMAGE, _AUDIO = ("text",), ("image",), ("audio",)

METRICS: dict[str, Metric] = {
    "fid": Metric(
        _PICTURES,
        LOWER,
        "Distance between the Gaussians that fit made and held-out features.",
        fewest=FEWEST_ITEMS,
    ),
    "kid": Metric(
        _PICTURES,
        LOWER,
        "Distance between made and held-out features by a cubic kernel; free of size bias.",
        fewest=4,
    ),
    "mind": Metric(
        _PICTURES, LOWER, "Sliced 2-Wasserstein distance between made and held-out features."
    ),
    "emd": Metric(_PICTURES, LOWER, "Earth mover's distance between made and held-out features."),
    "inception_score": Metric(
        _PICTURES, HIGHER, "How surely the judge names a class, and how evenly classes occur."
    ),
    "precision": Metric(
        _PICTURES,
        HIGHER,
        "Share of samples that lie among held-out items: quality.",
        fewest=DENSITY_K + 1,
        is_share=True,
    ),
    "recall": Metric(
        _PICTURES,
        HIGHER,
        "Share of held-out items that lie among samples: diversity.",
        fewest=DENSITY_K + 1,
        is_share=True,
    ),
    "density": Metric(
        _PICTURES,
        HIGHER,
        "How many held-out items' neighbourhoods hold a sample, on average.",
        fewest=DENSITY_K + 1,
    ),
    "coverage": Metric(
        _PICTURES,
        HIGHER,
        "Share of held-out items with a sample in their neighbourhood.",
        fewest=DENSITY_K + 1,
        is_share=True,
    ),
    "ssim_diversity": Metric(
        _PICTURES, CLOSER, "1 - structural similarity of random pairs of samples.", fewest=2
    ),
    "perceptual_diversity": Metric(
        _PICTURES, CLOSER, "Mean distance between samples' features.", fewest=2
    ),
    "intra_class_distance": Metric(
        _PICTURES, CLOSER, "Mean distance between samples of one class.", fewest=2
    ),
    "feature_entropy": Metric(
        _PICTURES,
        CLOSER,
        "How evenly samples vary along the directions of the features.",
        fewest=2,
    ),
    "class_kl": Metric(
        _PICTURES,
        LOWER,
        "KL divergence of the class histograms, held-out from made, in nats.",
    ),
    "label_agreement": Metric(
        _IMAGE,
        HIGHER,
        "Share of samples in which the judge sees the asked-for class.",
        is_share=True,
    ),
    "class_agreement": Metric(
        _AUDIO,
        HIGHER,
        "Share of sounds in which the judge hears the asked-for class.",
        is_share=True,
    ),
    "memorisation": Metric(
        _PICTURES,
        LOWER,
        "Share of samples as near to a training item as the nearest 1% of held-out items are.",
        is_share=True,
    ),
    "made_to_real_accuracy": Metric(
        _PICTURES,
        HIGHER,
        "Accuracy on held-out items of a classifier trained on samples.",
        is_share=True,
    ),
    "loss": Metric(_TEXT, LOWER, "Mean negative log-likelihood of a held-out token, in nats."),
    "perplexity": Metric(_TEXT, LOWER, "Exp of the loss: as many equally likely tokens."),
    "bits_per_character": Metric(
        _TEXT, LOWER, "Bits that a held-out character takes; comparable across tokenizers."
    ),
    "bits_per_sample": Metric(_AUDIO, LOWER, "Bits that a sample of a held-out sound takes."),
    "distinct_1": Metric(_TEXT, CLOSER, "Share of different words among all.", is_share=True),
    "distinct_2": Metric(
        _TEXT, CLOSER, "Share of different pairs of words among all.", is_share=True
    ),
    "distinct_3": Metric(
        _TEXT, CLOSER, "Share of different triples of words among all.", is_share=True
    ),
    "self_bleu": Metric(
        _TEXT,
        CLOSER,
        "How alike the texts are: BLEU of each against the others, 0 to 100.",
        fewest=2,
    ),
    "length": Metric(_TEXT, CLOSER, "Mean length in words."),
    "language": Metric(
        _TEXT, HIGHER, "Overlap of the languages of made and held-out texts, 0 to 1.", is_share=True
    ),
    "chrf": Metric(_TEXT, HIGHER, "Likeness to the reference by runs of characters, 0 to 100."),
    "bleu": Metric(_TEXT, HIGHER, "Likeness to the reference by runs of words, 0 to 100."),
    "rouge_l": Metric(
        _TEXT,
        HIGHER,
        "Likeness to the reference by the longest common subsequence of words, 0 to 1.",
        is_share=True,
    ),
    "spectral_distance": Metric(
        _AUDIO, LOWER, "Distance between the mean spectra of made and held-out sounds, in dB."
    ),
    "pitch_class_histogram": Metric(
        _TEXT,
        HIGHER,
        "Overlap of the pitch classes of made and held-out notes, 0 to 1.",
        is_share=True,
    ),
    "interval_histogram": Metric(
        _TEXT, HIGHER, "Overlap of the intervals between notes, 0 to 1.", is_share=True
    ),
}


def of_medium(medium: str) -> list[str]:
    """The names of the numbers that are measured of a medium."""
    return [name for name, metric in METRICS.items() if medium in metric.media]


def badness(metric: str, value: float, real: float | None) -> float:
    """How bad a value is, in the metric's own unit: lower is better. `real` is real data's value.

    NaN of a metric that should be close to `real`, where there is none.
    """
    better = METRICS[metric].better
    if better == CLOSER:
        return float("nan") if real is None else abs(value - real)
    return -value if better == HIGHER else value
