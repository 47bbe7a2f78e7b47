"""The numbers of a version that makes sounds: as spectrograms to the judge, and as waves."""

import numpy as np

from worker.evaluation import samples
from worker.evaluation.exhibits import sound_exhibits
from worker.evaluation.held_out import Losses, held_out_losses
from worker.evaluation.numbers import RESAMPLES, Numbers
from worker.evaluation.picture_numbers import add_agreement, add_usefulness, measure_pictures
from worker.evaluation.pictures import choose
from worker.evaluation.request import Measured, Request
from worker.evaluation.seen import arrays_of, ask, choose_held_out, require_judge, see
from worker.evaluation.stages import Stage
from worker.media import find_medium
from worker.metrics import bootstrap, sounds
from worker.networks.network import Output


def measure(request: Request, stage: Stage) -> Measured:
    """Make sounds and compare them with held-out ones, and predict these."""
    judge, held_out = require_judge(request), choose_held_out(request)
    asked, labels = ask(request, held_out)
    outputs = samples.make(request, asked, stage.part("making sounds", 0, 0.4))
    pictures = see(request, judge, held_out, outputs, labels, stage.part("judging", 0.4, 0.5))
    numbers = measure_pictures(pictures, stage.part("measuring", 0.5, 0.6))
    add_agreement(numbers, "class_agreement", pictures)
    made, real = [_heard(each) for each in outputs], _sounds(request, request.protocol.split)
    arrays = arrays_of(pictures, numbers) | _add_spectra(numbers, request, made, real)
    losses = held_out_losses(request, stage.part("predicting held-out sounds", 0.6, 0.8))
    _add_losses(numbers, losses)
    arrays |= {"nll": losses.nll, "tokens": losses.tokens}
    arrays |= add_usefulness(numbers, pictures, judge, stage.part("training on made", 0.8, 1))
    exhibits = sound_exhibits(pictures, made, real, request.network.shape.sample_rate)
    return Measured(numbers, arrays, exhibits)


def _sounds(request: Request, split: str) -> list[samples.Array]:
    """As many sounds of a split as samples, or all that there are."""
    dataset, protocol = request.dataset, request.protocol
    chosen = choose(dataset, split, most=protocol.count, seed=protocol.seed)
    found = find_medium(request.family.media).outputs(dataset, chosen.tolist())
    return [_heard(each) for each in found]


def _add_spectra(
    numbers: Numbers, request: Request, made: list[samples.Array], real: list[samples.Array]
) -> dict[str, samples.Array]:
    ours, theirs, other = (
        np.array([sounds.spectrum(wave) for wave in waves], np.float32)
        for waves in (made, real, _sounds(request, "train"))
    )
    found = bootstrap.interval(sounds.spectral_distance, theirs, ours, resamples=RESAMPLES)
    alike = sounds.spectral_distance(theirs, other) if len(other) == len(theirs) else None
    numbers.add("spectral_distance", found, n=len(ours), real=alike)
    return {"made_spectra": ours, "real_spectra": theirs}


def _heard(output: Output) -> samples.Array:
    """A sound as an array; silence of one sample in place of an empty one."""
    sound = np.asarray(output, np.float32)
    return sound if len(sound) else np.zeros(1, np.float32)


def _add_losses(numbers: Numbers, losses: Losses) -> None:
    def bits(pair: tuple[samples.Array, samples.Array]) -> float:
        return sounds.bits_per_sample(*pair)

    found = bootstrap.interval(bits, (losses.nll, losses.tokens))
    numbers.add("bits_per_sample", found, n=len(losses.nll))
