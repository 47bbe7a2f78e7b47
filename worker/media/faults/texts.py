"""Faults of made texts, by the runs of characters that they share with the data and one another."""

from collections.abc import Iterable, Iterator, Sequence

from worker.metrics.text_diversity import distinct, length_statistics

LEAST = 4  # texts; fewer tell nothing
LEAST_CHARACTERS = 200  # of all texts together
RUN = 8  # characters
REPETITIVE = 0.25  # of the share of different runs in held-out text
KNOWN_RUNS = (5, 4, 3)  # characters; the longest that held-out text shares with training text
MOST_KNOWN = 0.5  # share of such runs in held-out text that training text has, at least
NOISE = 0.5  # of that share
PASSAGE = 60  # characters of a copy
STRIDE = 20  # characters from one passage that is looked for to the next
COPIES = 0.5  # share of passages, beyond that of held-out text
TRAIN_CHARACTERS, HELD_OUT_CHARACTERS = 500_000, 50_000  # that are looked at


def text_faults(
    made: Sequence[str], held_out: Iterable[str], train: Iterable[str], *, tuned: bool
) -> list[str]:
    """What is wrong with made texts beside held-out and training ones; too few tell nothing.

    A network that was `tuned` knows other texts too, so strange ones are no fault of it.
    """
    if len(made) < LEAST:
        return []
    if not length_statistics([len(text.strip()) for text in made]).median:
        return [f"at least half of the {len(made)} texts that were looked at are empty"]
    real, known = _joined(held_out, HELD_OUT_CHARACTERS), _joined(train, TRAIN_CHARACTERS)
    pieces = list(_pieces(real, [len(text) for text in made]))
    if min(sum(map(len, made)), sum(map(len, pieces))) < LEAST_CHARACTERS:
        return []
    repetitive = _repetitive(made, pieces)
    strange = [] if tuned or repetitive else _strange(made, pieces, known)
    return [*repetitive, *strange, *_copied(made, pieces, known)]


def _repetitive(made: Sequence[str], pieces: Sequence[str]) -> list[str]:
    share, usual = distinct(made, RUN), distinct(pieces, RUN)
    if share >= REPETITIVE * usual:
        return []
    return [
        f"the {len(made)} texts that were looked at repeat themselves or one another: {share:.0%} "
        f"of their runs of {RUN} characters are different, in held-out text {usual:.0%}"
    ]


def _strange(made: Sequence[str], pieces: Sequence[str], known: str) -> list[str]:
    for length in KNOWN_RUNS:
        runs = {known[place : place + length] for place in range(len(known) - length + 1)}
        usual = _share_of_runs(pieces, runs, length)
        if usual >= MOST_KNOWN:
            share = _share_of_runs(made, runs, length)
            if share >= NOISE * usual:
                return []
            return [
                f"the {len(made)} texts that were looked at are like noise: the training data have "
                f"{share:.0%} of their runs of {length} characters, and {usual:.0%} of those of "
                "held-out text"
            ]
    return []


def _share_of_runs(texts: Iterable[str], runs: set[str], length: int) -> float:
    found = [
        text[place : place + length] in runs
        for text in texts
        for place in range(len(text) - length + 1)
    ]
    return sum(found) / len(found) if found else 0.0


def _copied(made: Sequence[str], pieces: Sequence[str], known: str) -> list[str]:
    share, usual = _share_of_passages(made, known), _share_of_passages(pieces, known)
    if share <= usual + COPIES:
        return []
    return [f"{share:.0%} of the passages of {len(made)} texts are copies of training text"]


def _share_of_passages(texts: Iterable[str], known: str) -> float:
    found = [
        text[place : place + PASSAGE] in known
        for text in texts
        for place in range(0, len(text) - PASSAGE + 1, STRIDE)
    ]
    return sum(found) / len(found) if found else 0.0


def _pieces(text: str, lengths: Sequence[int]) -> Iterator[str]:
    """Pieces of a text of these lengths, spread evenly; they overlap where it is too short."""
    room = max(len(text) - max(lengths, default=0), 0)
    for number, length in enumerate(lengths):
        first = room * number // max(len(lengths) - 1, 1)
        yield text[first : first + length]


def _joined(texts: Iterable[str], most: int) -> str:
    """The beginning of many texts, one after another."""
    found, size = list[str](), 0
    for text in texts:
        found.append(text[: most - size])
        size += len(found[-1]) + 1
        if size >= most:
            break
    return "\n".join(found)
