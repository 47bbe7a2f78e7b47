"""The numbers of a version that makes texts: how it predicts real ones, and what it writes."""

from worker.evaluation import samples
from worker.evaluation.asking import PROMPTS
from worker.evaluation.held_out import Losses, held_out_losses
from worker.evaluation.numbers import Numbers
from worker.evaluation.request import Exhibit, Measured, Request
from worker.evaluation.samples import Asked
from worker.evaluation.stages import Stage
from worker.evaluation.text_numbers import (
    add_diversity,
    add_likeness,
    add_losses,
    add_notes,
    self_bleu_of,
)
from worker.evaluation.writings import Writings, read_references, read_writings
from worker.specs import Prompt

SHOWN = 6  # texts of each kind
SHOWN_CHARACTERS = 600


def measure(request: Request, stage: Stage) -> Measured:
    """Predict held-out texts, write texts, and compare these with held-out ones."""
    numbers = Numbers()
    losses = held_out_losses(request, stage.part("predicting held-out texts", 0, 0.4))
    add_losses(numbers, losses)
    references = read_references(request) if request.protocol.asked == PROMPTS else []
    asked = Asked(prompts=tuple(Prompt(prompt=prompt) for prompt, _ in references))
    made = [
        str(each) for each in samples.make(request, asked, stage.part("writing texts", 0.4, 0.9))
    ]
    writings = read_writings(request, made, [answer for _, answer in references])
    add_diversity(numbers, writings)
    add_likeness(numbers, writings)
    add_notes(numbers, writings)
    stage.tick(1, 1)
    return Measured(numbers, _arrays(losses, writings), _exhibits(writings, references))


def _arrays(losses: Losses, writings: Writings) -> dict[str, samples.Array]:
    arrays = {"nll": losses.nll, "tokens": losses.tokens}
    if losses.characters is not None:
        arrays["characters"] = losses.characters
    lengths = [len(each) for each in writings.made_words]
    return arrays | {
        "made_self_bleu": self_bleu_of(writings.made_words),
        "made_words": samples.counts(lengths),
    }


def _exhibits(writings: Writings, references: list[tuple[str, str]]) -> list[Exhibit]:
    made = [(f"sample {place}", text) for place, text in enumerate(writings.made)]
    real = [(f"real {place}", text) for place, text in enumerate(writings.real)]
    for place, (prompt, _) in enumerate(references):
        made[place] = (f"to: {prompt[:200]}", made[place][1])
    return [
        Exhibit("Made", "", None, [_short(each) for each in made[:SHOWN]]),
        Exhibit("Held out", "", None, [_short(each) for each in real[:SHOWN]]),
    ]


def _short(shown: tuple[str, str]) -> tuple[str, str]:
    heading, text = shown
    return heading, text[:SHOWN_CHARACTERS] + "..." * (len(text) > SHOWN_CHARACTERS)
