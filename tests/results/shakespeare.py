"""`gpt` and `rnn` on tinyshakespeare, judged on the whole validation part."""

from tests.results.machine import DATA, Machine, Result


def gpt_on_shakespeare(machine: Machine) -> list[Result]:
    """The transformer with the family's defaults."""
    return _three_minutes(machine, "gpt", bound=1.60)


def rnn_on_shakespeare(machine: Machine) -> list[Result]:
    """The recurrent network, which has read 256 characters before each that it predicts."""
    return _three_minutes(machine, "rnn", bound=1.65)


def _three_minutes(machine: Machine, family: str, *, bound: float) -> list[Result]:
    """Train on characters; the last tenth is held out, and each of it is predicted once."""
    data = DATA / "tinyshakespeare.txt"
    machine.run("dataset", "add", "shakespeare", data, "--split", "90,10,0")
    words = ["--dataset", "shakespeare", "--name", "bard", "--max-seconds", "180", "--seed", "1"]
    machine.run("enqueue", "train", family, *words, "--wait")
    metrics = machine.version("bard")["metrics"]
    loss = metrics["nats_per_character"]
    figure = f"{loss:.3f} nats a character in {metrics['steps']:.0f} steps"
    return [Result(f"{family}, tinyshakespeare, 180 s", figure, f"<= {bound}", loss <= bound)]
