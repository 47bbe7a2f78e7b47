"""The transformer on tinyshakespeare, judged on the whole validation part."""

from tests.results.machine import DATA, Machine, Result


def gpt_on_shakespeare(it: Machine) -> list[Result]:
    """nanoGPT's CPU setting, judged on the whole validation part, the last tenth of the text."""
    it.run("dataset", "add", "shakespeare", DATA / "tinyshakespeare.txt", "--split", "90,10,0")
    sizes = ["layers=4", "heads=4", "width=128", "context=64", "batch_size=12"]
    settings = [word for size in sizes for word in ("--set", size)]
    words = ["--dataset", "shakespeare", "--name", "bard", "--max-steps", "2000", "--seed", "1"]
    it.run("enqueue", "train", "gpt", *words, *settings, "--wait")
    metrics = it.version("bard")["metrics"]
    loss = metrics["nats_per_character"]
    case = "gpt, tinyshakespeare, nanoGPT's CPU setting, 2,000 steps"
    figure = f"{loss:.3f} nats a character in {metrics['seconds']:.0f} s"
    return [Result(case, figure, "<= 1.75", loss <= 1.75)]
