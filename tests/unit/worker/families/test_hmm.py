"""The mathematics of `hmm`: against sums over all paths, and what EM promises."""

from itertools import product
from pathlib import Path

import numpy as np
import pytest
import torch

from tests.families.kit import Recorder, small_training, text_dataset, train_small
from worker.data.dataset import LocalDataset
from worker.engine.train import train
from worker.engine.weights import load
from worker.families import find_family
from worker.families.hmm.emissions import Discrete, Gaussian
from worker.families.hmm.feed import TokenSequences
from worker.families.hmm.learning import Counts, Model, expectation, initialise, log_likelihoods
from worker.families.hmm.model import HiddenMarkovModel
from worker.networks.network import Batch, Clock, Draw

CPU = torch.device("cpu")
HMM = find_family("hmm")
STATES, VOCABULARY = 3, 4
WHOLE = {"batch_size": 1000, "restarts": 2, "states": 4}


def random_counts(width: int, seed: int = 0) -> Counts:
    draw = torch.Generator().manual_seed(seed)
    sizes = ((STATES,), (STATES, STATES), (STATES, width))
    return Counts(*(torch.rand(size, generator=draw, dtype=torch.float64) for size in sizes))


def discrete() -> tuple[Model, torch.Tensor]:
    data = torch.tensor(
        [[0, 3, 1, 1, 2], [2, 0, ~1, 3, VOCABULARY]]
    )  # ~1 is 1; the last is missing
    return Model(random_counts(VOCABULARY), Discrete(VOCABULARY), 0.1), data


def gaussian() -> tuple[Model, torch.Tensor]:
    kind = Gaussian(2, floor=0.01)
    data = torch.randn(2, 5, 2, generator=torch.Generator().manual_seed(3), dtype=torch.float64)
    guess = kind.initial(data, STATES, torch.Generator().manual_seed(4))
    chain = random_counts(1)
    data[1, 4] = torch.nan
    return Model(Counts(chain.initial, chain.transitions, guess), kind, 0.1), data


CASES = pytest.mark.parametrize("case", [discrete, gaussian])


def densities(model: Model, data: torch.Tensor) -> torch.Tensor:
    """Each observation's likelihood in each state, (N, T, K), 1 where missing: written out."""
    if isinstance(model.kind, Discrete):
        table = model.emissions / model.emissions.sum(-1, keepdim=True)
        ids = torch.where(data < 0, ~data, data)
        found = table[:, ids.clamp(max=VOCABULARY - 1)].permute(1, 2, 0)
        return torch.where((ids == VOCABULARY)[..., None], 1.0, found)
    mean, variance = model.kind.moments(model.emissions)
    normal = torch.distributions.Normal(mean, variance.sqrt())
    found = normal.log_prob(data.nan_to_num()[:, :, None]).sum(-1).exp()
    return torch.where(data[..., :1].isnan(), 1.0, found)


def enumerated(model: Model, data: torch.Tensor) -> list[dict[tuple[int, ...], float]]:
    """For each sequence, the joint likelihood of it and of every path of states."""
    chances = densities(model, data)
    chain, sequences = model.chain, []
    for row in chances:
        paths = {}
        for path in product(range(STATES), repeat=len(row)):
            chance = float(chain.initial[path[0]] * row[0, path[0]])
            for t in range(1, len(row)):
                chance *= float(chain.transitions[path[t - 1], path[t]] * row[t, path[t]])
            paths[path] = chance
        sequences.append(paths)
    return sequences


@CASES
def test_likelihood_equals_the_sum_over_all_paths(case) -> None:
    model, data = case()
    expected = sum(np.log(sum(paths.values())) for paths in enumerated(model, data))
    assert float(expectation(model, data).log_likelihood) == pytest.approx(expected, abs=1e-10)
    assert float(log_likelihoods(model, data).sum()) == pytest.approx(expected, abs=1e-10)


@CASES
def test_expected_counts_equal_those_over_all_paths(case) -> None:
    model, data = case()
    initial, moves = torch.zeros(STATES), torch.zeros(STATES, STATES)
    posteriors = torch.zeros(data.shape[1], len(data), STATES, dtype=torch.float64)
    known = model.kind.known(data)
    for n, paths in enumerate(enumerated(model, data)):
        total = sum(paths.values())
        for path, chance in paths.items():
            initial[path[0]] += chance / total
            for t, state in enumerate(path):
                posteriors[t, n, state] += chance / total
                if t and known[t, n]:
                    moves[path[t - 1], state] += chance / total
    found = expectation(model, data).counts
    torch.testing.assert_close(found.initial.float(), initial)
    torch.testing.assert_close(found.transitions.float(), moves)
    expected = model.kind.statistics(data, posteriors)
    torch.testing.assert_close(found.emissions, expected)
    if isinstance(model.kind, Discrete):
        ids = torch.where(data < 0, ~data, data).T
        of_token_2 = posteriors[ids == 2].sum(0)
        torch.testing.assert_close(found.emissions[:, 2], of_token_2)


@CASES
def test_sequences_read_in_parts_count_as_those_read_at_once(case, monkeypatch) -> None:
    model, data = case()
    whole = expectation(model, data)
    parts = expectation(model, data, rows=1)
    torch.testing.assert_close(whole.counts.transitions, parts.counts.transitions)
    torch.testing.assert_close(whole.counts.emissions, parts.counts.emissions)
    assert float(whole.log_likelihood) == pytest.approx(float(parts.log_likelihood))


@CASES
@pytest.mark.parametrize("prior", [1e-6, 0.5])
def test_penalised_likelihood_never_falls(case, prior: float) -> None:
    model, _ = case()
    model = Model(model.counts, model.kind, prior)
    draw = torch.Generator().manual_seed(9)
    data = torch.randint(VOCABULARY, (20, 12), generator=draw)
    if isinstance(model.kind, Gaussian):
        data = torch.randn(20, 12, 2, generator=draw, dtype=torch.float64).round(decimals=1)
        data[:, :6] = 0.7  # half of all is one value, so that a variance wants to be zero
    reached = []
    for _ in range(60):
        found = expectation(model, data)
        reached.append(float(found.log_likelihood + model.log_prior))
        model = Model(found.counts, model.kind, prior)
    assert min(np.diff(reached)) > -1e-9 * abs(reached[0])
    assert reached[-1] > reached[0] + 1
    if isinstance(model.kind, Gaussian):
        assert float(model.kind.moments(model.emissions)[1].min()) >= model.kind.floor


def test_more_restarts_never_start_worse() -> None:
    draw = torch.Generator().manual_seed(1)
    data, kind = torch.randint(8, (30, 16), generator=draw), Discrete(8)
    gains = []
    for seed in range(4):
        reached = []
        for restarts in (2, 4, 8):
            counts = initialise(data, kind, states=4, prior=0.1, restarts=restarts, seed=seed)
            model = Model(counts, kind, 0.1)
            reached.append(float(expectation(model, data).log_likelihood + model.log_prior))
        assert reached[0] <= reached[1] <= reached[2]
        gains.append(reached[2] - reached[0])
    assert max(gains) > 0


def test_training_on_all_sequences_at_once_never_loses_likelihood(tmp_path: Path) -> None:
    monitor = Recorder()
    dataset = text_dataset(tmp_path / "dataset")
    asked = small_training(HMM, dataset, tmp_path / "run", params=WHOLE, max_steps=25)
    train(asked, monitor)
    objective = [value for _, value in monitor.curves["train/objective"]]
    assert len(objective) == 25
    assert max(np.diff(objective)) <= 1e-9
    assert objective[-1] < objective[0] - 0.1


def test_validation_judges_each_token_once_given_all_before_it(tmp_path: Path) -> None:
    trained = train_small(HMM, text_dataset(tmp_path / "dataset"), tmp_path / "run", max_steps=10)
    network = load(trained.folder, device=CPU)[1]
    assert isinstance(network, HiddenMarkovModel)
    feed = network.feed(
        network.params, LocalDataset(tmp_path / "dataset"), seed=0, files=trained.folder
    )
    assert isinstance(feed, TokenSequences)
    stream = torch.from_numpy(np.array(feed._validation, np.int64))
    total, judged = 0.0, []
    for data, _ in feed.validation():
        rows = torch.from_numpy(data)
        loss = network.validate(Batch(rows, None, Draw([(0, 0)])))["loss"]
        total += float(loss) * int((rows >= 0).sum())
        judged += rows[rows >= 0].tolist()
    assert judged == stream[1:].tolist()
    exact = -float(log_likelihoods(network.model, stream[None])[0, 1:].sum())
    assert total == pytest.approx(exact, rel=1e-4)


def test_stepwise_em_moves_less_and_less(tmp_path: Path) -> None:
    trained = train_small(HMM, text_dataset(tmp_path / "dataset"), tmp_path / "run", max_steps=2)
    moved = []
    for step in (1, 100):
        network = load(trained.folder, device=CPU)[1]
        data = torch.arange(17).repeat(network.params.batch_size, 1) + 2
        before = network.emissions.clone()
        network.train_step(Batch(data, None, Draw([(0, 0)])), {}, Clock(step=step))
        moved.append(float((network.emissions - before).abs().sum()))
    assert moved[1] == pytest.approx(moved[0] * (102 / 3) ** -0.55, rel=1e-6)


def test_finetuning_takes_the_old_counts_as_a_prior(tmp_path: Path) -> None:
    dataset = text_dataset(tmp_path / "dataset")
    parent = train_small(HMM, dataset, tmp_path / "parent", params=WHOLE, max_steps=5)
    old = load(parent.folder, device=CPU)[1]
    rate = {"finetune_rate": 0.25}
    child = train_small(
        HMM, dataset, tmp_path / "child", params=WHOLE | rate, parent=parent.folder, max_steps=1
    )
    data, _ = old.feed(old.params, dataset, seed=0, files=parent.folder).train(0)
    found = expectation(old.model, torch.from_numpy(data)).counts
    new = load(child.folder, device=CPU)[1].counts
    torch.testing.assert_close(new.transitions, 0.75 * old.transitions + 0.25 * found.transitions)
    torch.testing.assert_close(new.emissions, 0.75 * old.emissions + 0.25 * found.emissions)


def test_decoder_gives_the_next_token_s_probabilities_given_all_before(tmp_path: Path) -> None:
    trained = train_small(HMM, text_dataset(tmp_path / "dataset"), tmp_path / "run", max_steps=5)
    network = load(trained.folder, device=CPU)[1]
    ids = torch.tensor([0, 5, 7, 3, 9])
    decoder = network.decoder(2)
    decoder.read(torch.tensor([8, 8]))
    decoder.reset(1)
    for token in ids[:-1]:
        logits = decoder.read(torch.tensor([11, int(token)]))[1]
    exact = log_likelihoods(network.model, ids[None])[0, -1]
    assert float(logits.log_softmax(-1)[9]) == pytest.approx(float(exact), abs=1e-5)
    assert float(logits.exp().sum()) == pytest.approx(1, abs=1e-5)
