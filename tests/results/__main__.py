"""Run the real commands on real data and print the table of results: `make results`.

Each case trains and generates through `genmill up` in a home of its own, downloads the samples, and
judges them with code that shares nothing with the families.
"""

import sys
from collections.abc import Callable

import click

from tests.results.chain import chain_killed_everywhere
from tests.results.gan import gan_on_cifar, gan_on_mnist
from tests.results.gate import gate_on_equals_and_better
from tests.results.hf import hf_on_shakespeare
from tests.results.hmm import hmm_on_shakespeare, hmm_on_tunes
from tests.results.loop import loop_on_mnist
from tests.results.machine import DATA, Machine, Result, running_machine
from tests.results.marks import CASES as MARKS
from tests.results.metrics import metrics_and_others
from tests.results.order import order_of_a_thousand
from tests.results.planted import planted_everywhere
from tests.results.queue import through_the_queue
from tests.results.recovery import recovery_by_default
from tests.results.shakespeare import gpt_on_shakespeare, rnn_on_shakespeare
from tests.results.text2image import text2image_on_mnist
from tests.results.vae import vae_on_mnist
from tests.results.wavenet import wavenet_on_spoken_digits

CASES: dict[str, Callable[[Machine], list[Result]]] = {
    "chain": chain_killed_everywhere,
    "digits": loop_on_mnist,
    "gan": gan_on_mnist,
    "gan-cifar": gan_on_cifar,
    "gate": gate_on_equals_and_better,
    "gpt": gpt_on_shakespeare,
    "hf": hf_on_shakespeare,
    "hmm": hmm_on_shakespeare,
    "hmm-tunes": hmm_on_tunes,
    **MARKS,
    "metrics": metrics_and_others,
    "order": order_of_a_thousand,
    "planted": planted_everywhere,
    "queue": through_the_queue,
    "recovery": recovery_by_default,
    "rnn": rnn_on_shakespeare,
    "text2image": text2image_on_mnist,
    "vae": vae_on_mnist,
    "wavenet": wavenet_on_spoken_digits,
}
GROUPS = {
    # the closed loop: data, metrics, gate, orders, chains
    "loop": ("digits", "gate", "metrics", "planted", "order", "chain"),
    "marks": tuple(MARKS),
}


@click.command()
@click.option(
    "--only",
    type=click.Choice([*CASES, *GROUPS]),
    multiple=True,
    help="run only this case, or the cases of this group; repeatable",
)
def main(only: tuple[str, ...]) -> None:
    """Run the cases and print a Markdown table; exit with 1 if a bound is missed."""
    if not DATA.exists():
        raise click.ClickException("the maintainers' data sets are not beside the project")
    results = []
    for name in [each for one in only or CASES for each in GROUPS.get(one, (one,))]:
        with running_machine() as machine:
            found = CASES[name](machine)
        if not found:
            raise click.ClickException(f"the case {name} has no results")
        results += found
    click.echo("| case | figure | bound | |\n| --- | --- | --- | --- |")
    for row in results:
        click.echo(f"| {row.case} | {row.figure} | {row.bound} | {'ok' if row.kept else 'MISS'} |")
    sys.exit(0 if all(row.kept for row in results) else 1)


if __name__ == "__main__":
    main()
