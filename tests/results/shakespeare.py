"""Language models of characters on tinyshakespeare: three minutes each, defaults, last tenth."""

from tests.results.machine import DATA, Machine, Result


def gpt_on_shakespeare(it: Machine) -> list[Result]:
    """The transformer, evaluated on the whole validation split."""
    return _trained(it, "gpt", bound=1.60)


def rnn_on_shakespeare(it: Machine) -> list[Result]:
    """The recurrent network, evaluated on the whole validation split with 256 tokens of context."""
    return _trained(it, "rnn", bound=1.65)


def _trained(it: Machine, family: str, *, bound: float) -> list[Result]:
    it.run("dataset", "add", "shakespeare", DATA / "tinyshakespeare.txt", "--split", "90,10,0")
    words = ["--dataset", "shakespeare", "--name", "bard", "--max-seconds", "180", "--seed", "1"]
    it.run("enqueue", "train", family, *words, "--wait")
    metrics = it.version("bard")["metrics"]
    loss = metrics["nats_per_character"]
    figure = f"{loss:.3f} nats a character in {metrics['steps']:.0f} steps"
    return [Result(f"{family}, tinyshakespeare, 180 s", figure, f"<= {bound}", loss <= bound)]
