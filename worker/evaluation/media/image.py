"""The numbers of a version that makes images."""

from worker.evaluation import samples
from worker.evaluation.exhibits import picture_exhibits
from worker.evaluation.picture_numbers import add_agreement, add_usefulness, measure_pictures
from worker.evaluation.request import Measured, Request
from worker.evaluation.seen import arrays_of, ask, choose_held_out, require_judge, see
from worker.evaluation.stages import Stage


def measure(request: Request, stage: Stage) -> Measured:
    """Make images and compare them with held-out ones."""
    judge, held_out = require_judge(request), choose_held_out(request)
    asked, labels = ask(request, held_out)
    outputs = samples.make(request, asked, stage.part("making samples", 0, 0.3))
    pictures = see(request, judge, held_out, outputs, labels, stage.part("judging", 0.3, 0.5))
    numbers = measure_pictures(pictures, stage.part("measuring", 0.5, 0.8))
    add_agreement(numbers, "label_agreement", pictures)
    named = add_usefulness(numbers, pictures, judge, stage.part("training on made", 0.8, 1))
    return Measured(numbers, arrays_of(pictures, numbers) | named, picture_exhibits(pictures))
