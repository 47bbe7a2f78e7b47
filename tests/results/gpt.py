"""The transformer on tinyshakespeare, judged on the whole validation part."""

from tests.results.machine import DATA, Machine, Result

BOUND = 1.60


def gpt_on_shakespeare(machine: Machine) -> list[Result]:
    """Three minutes over characters with the family's defaults; the last tenth is held out."""
    machine.run("dataset", "add", "shakespeare", DATA / "tinyshakespeare.txt", "--split", "90,10,0")
    words = ["--dataset", "shakespeare", "--name", "bard", "--max-seconds", "180", "--seed", "1"]
    machine.run("enqueue", "train", "gpt", *words, "--wait")
    metrics = machine.version("bard")["metrics"]
    loss = metrics["nats_per_character"]
    figure = f"{loss:.3f} nats a character in {metrics['steps']:.0f} steps"
    return [Result("gpt, tinyshakespeare, 180 s", figure, f"<= {BOUND}", loss <= BOUND)]
