"""The recurrent network on tinyshakespeare, judged on the whole validation part."""

from tests.results.machine import DATA, Machine, Result

BOUND = 1.65


def rnn_on_shakespeare(machine: Machine) -> list[Result]:
    """Three minutes over characters; each of the last tenth is predicted once, after 256 others."""
    machine.run("dataset", "add", "shakespeare", DATA / "tinyshakespeare.txt", "--split", "90,10,0")
    words = ["--dataset", "shakespeare", "--name", "will", "--max-seconds", "180", "--seed", "1"]
    machine.run("enqueue", "train", "rnn", *words, "--wait")
    metrics = machine.version("will")["metrics"]
    loss = metrics["nats_per_character"]
    figure = f"{loss:.3f} nats a character in {metrics['steps']:.0f} steps"
    return [Result("rnn, tinyshakespeare, 180 s", figure, f"<= {BOUND}", loss <= BOUND)]
