"""WaveNet's own mathematics: what a prediction sees, queues against the full forward, ends."""

import numpy as np
import pytest
import torch

from tests.families.kit import make, small_params, sound_dataset, train_small
from worker.data.dataset import VALIDATION, LocalDataset, Shape
from worker.engine.sampler import Sampler
from worker.engine.weights import load
from worker.families import find_family
from worker.families.wavenet import WaveNetParams, WaveNetSampling
from worker.families.wavenet.layers import PARTS, plan_index, receptive_field
from worker.families.wavenet.model import WaveNet
from worker.families.wavenet.queues import Queues
from worker.families.wavenet.sampling import ActiveSound, choose, length_of
from worker.feeds.mulaw import SILENCE
from worker.feeds.sounds import START_CODE, SoundStatistics
from worker.networks.network import Row

WAVENET = find_family("wavenet")
PARAMS = WaveNetParams(channels=8, skip=12, stacks=2, dilations=3)
SHAPE = Shape("audio", labels=("low", "high"), sample_rate=1000)
TONES = {"channels": 16, "dilations": 5, "context": 128, "lr": 2e-2, "batch_size": 8}
CPU = torch.device("cpu")
START = torch.zeros(1, dtype=torch.int64)  # of a window that begins with its sound
LONG = torch.tensor([40])  # samples of a sound: one in each part of it


@pytest.fixture
def network() -> WaveNet:
    """A network whose every weight matters."""
    torch.manual_seed(0)
    made = WaveNet(PARAMS, SHAPE).eval()
    with torch.no_grad():
        for parameter in made.parameters():
            parameter.add_(0.1 * torch.randn_like(parameter))
    return made


def test_a_prediction_sees_its_receptive_field_and_nothing_else(network):
    field = receptive_field(PARAMS)
    assert field == 1 + 2 * (1 + 2 + 4)
    codes = torch.randint(256, (1, 2 * field))
    label = torch.tensor([0])
    place = 5  # a prediction, of the sample after codes[place + field - 1]
    before = network(codes, START, LONG, label)[0, place]
    for changed in range(2 * field):
        other = codes.clone()
        other[0, changed] = (codes[0, changed] + 100) % 256
        after = network(other, START, LONG, label)[0, place]
        seen = place <= changed < place + field
        assert torch.equal(before, after) != seen, changed


def test_there_is_one_prediction_for_each_whole_receptive_field(network):
    codes = torch.randint(256, (3, receptive_field(PARAMS) + 9))
    assert network(codes, START, LONG, torch.tensor([0, 1, 0])).shape == (3, 10, 256)


def test_the_class_changes_what_is_predicted(network):
    codes = torch.randint(256, (1, 20)).repeat(2, 1)
    low, high = network(codes, START, LONG, torch.tensor([0, 1]))
    assert (low - high).abs().max() > 1e-3


def test_a_part_s_plan_is_read_from_its_first_sample_on_by_its_class_alone(network):
    codes = torch.randint(256, (1, receptive_field(PARAMS) + 79)).repeat(3, 1)
    labels, lengths = torch.tensor([0, 1, 1]), torch.tensor([80, 80, 320])
    before = network(codes, START, lengths, labels)
    with torch.no_grad():
        network.plan.weight[PARTS + 1 + 9] += 1  # class 1, the tenth fortieth
    changed = (network(codes, START, lengths, labels) != before).any(dim=2)
    assert not changed[0].any()
    for row, first in ((1, 18), (2, 72)):
        assert not changed[row, :first].any()
        assert changed[row, first : first * 10 // 9].all()


def test_what_comes_before_a_sound_is_its_first_part_and_what_comes_after_it_a_part_of_its_own():
    times, length = torch.tensor([-1000, -1, 0, 1, 2, 79, 80, 10**6]), torch.tensor(80)
    assert plan_index(torch.tensor(0), times, length).tolist() == [0, 0, 0, 0, 1, 39, 40, 40]


def test_a_window_has_the_logits_that_the_whole_sound_has_in_its_place(network):
    field, at = receptive_field(PARAMS), 21
    codes = torch.randint(256, (1, field + 59))
    whole = network(codes, START, LONG, torch.tensor([1]))
    window = network(codes[:, at:], START + at, LONG, torch.tensor([1]))
    torch.testing.assert_close(window, whole[:, at:], rtol=1e-4, atol=1e-5)


def test_queued_logits_equal_those_of_the_full_forward(network):
    field, steps = receptive_field(PARAMS), 40
    labels, lengths = torch.tensor([0, 1, 1]), torch.tensor([30, 50, 400])
    codes = torch.randint(256, (3, steps))
    whole = torch.cat((torch.full((3, field), START_CODE), codes), dim=1)
    with torch.inference_mode():
        full = network(whole[:, :-1], START, lengths, labels)
        queues = Queues(network, 3)
        cached = [queues.prime(labels, lengths, torch.ones(3, dtype=torch.bool))]
        cached += [queues.step(codes[:, time]) for time in range(steps - 1)]
    torch.testing.assert_close(torch.stack(cached, dim=1), full, rtol=1e-4, atol=1e-5)


def test_a_new_network_predicts_near_codes_alike():
    network = WaveNet(WaveNetParams(), SHAPE)
    near, far = (network.embedding.weight[[a, b]].diff(dim=0).norm() for a, b in ((9, 10), (9, 99)))
    assert near < 0.5 * far


def test_codes_are_chosen_as_often_as_their_chances_say():
    logits = torch.tensor([[0.0, 1.0, -torch.inf, 2.0]]).repeat(20_000, 1)
    numbers = (torch.arange(20_000) / 20_000)[:, None]
    found = torch.bincount(choose(logits, numbers, 1.0), minlength=4) / 20_000
    torch.testing.assert_close(found, torch.softmax(logits[0], 0), atol=1e-3, rtol=0)
    cold = torch.bincount(choose(logits, numbers, 0.1), minlength=4) / 20_000
    assert cold[3] > 0.999


def test_a_sound_ends_at_the_first_silence_long_enough_after_it_began():
    def length(text: str) -> int:
        codes = np.array([SILENCE if c == "_" else 7 for c in text], np.uint8)
        return length_of(codes, 3)

    assert length("ab__c___de") == 5
    assert length("ab__c__d__") == 10
    assert length("____a___") == 5
    assert length("ab____") == 2
    assert length("______") == 6, "silence alone is kept whole"
    assert length("abcdef") == 6


def test_a_row_that_begins_later_has_the_logits_of_one_that_began_first(network):
    codes = torch.randint(256, (30, 2))
    labels, both = torch.tensor([0, 1]), torch.tensor([True, True])
    lengths = torch.tensor([9, 21])
    with torch.inference_mode():
        first = Queues(network, 2)
        wanted = [first.prime(labels, lengths, both), *(first.step(row) for row in codes)]
        later = Queues(network, 2)
        later.prime(torch.tensor([0, 0]), lengths, both)
        for row in codes[:13]:
            later.step(row)
        found = [later.prime(labels, lengths, torch.tensor([False, True]))]
        found += [later.step(row) for row in codes]
    for one, other in zip(wanted, found, strict=True):
        torch.testing.assert_close(one[1], other[1], rtol=0, atol=0)


@pytest.mark.parametrize("silence", [3, 130, 300])
def test_a_voice_ends_as_soon_as_its_silence_is_long_enough(silence):
    codes = np.full(1024, 7, np.uint8)
    codes[200 : 200 + silence] = SILENCE
    voice = ActiveSound(Row(0), torch.zeros(1024))
    lengths = []
    for part in np.split(codes, 8):
        voice.parts.append(part)
        lengths.append(voice.length(silence, 1000))
    looks = -(-(200 + silence) // 128)
    assert lengths[:looks] == [*[None] * (looks - 1), 200]


def test_a_voice_that_never_rests_ends_at_the_limit():
    voice = ActiveSound(Row(0), torch.zeros(256), [np.full(128, 7, np.uint8)])
    assert voice.length(20, 200) is None
    voice.parts.append(np.full(128, 7, np.uint8))
    assert voice.length(20, 200) == 200


def test_a_shorter_limit_gives_the_beginning_of_the_same_sounds(network):
    rows = [Row(index, index % 2, seed=3) for index in range(4)]
    made = [
        Sampler(network, WaveNetSampling(seconds=seconds, micro_batch=4)).make(rows)
        for seconds in (0.02, 0.05)
    ]
    for short, long in zip(*made, strict=True):
        assert len(short) == 20
        assert len(long) == 50
        assert (short[:15] == long[:15]).all(), "the last 5 ms fade"
        assert short[-1] == 0


def test_the_data_say_how_long_sounds_are_where_nobody_does(network):
    network.statistics = SoundStatistics(seconds=0.03, silence=1000)
    [sound] = Sampler(network, WaveNetSampling(micro_batch=1)).make([Row(0, 0, seed=3)])
    assert len(sound) == 30


def test_a_sound_is_told_a_length_that_its_class_has_and_ends_with_it(network):
    rows, made = [Row(0, 0, seed=3), Row(1, 1, seed=3)], []
    for low in (0.02, 0.04):
        network.statistics = SoundStatistics(0.05, 1000, {"low": [low], "high": [0.03]})
        made.append(Sampler(network, WaveNetSampling(micro_batch=2)).make(rows))
    (low, high), (other_low, same_high) = made
    assert [len(low), len(other_low), len(high)] == [20, 40, 30]
    assert (low[:15] != other_low[:15]).any(), "the last 5 ms fade"
    assert (high == same_high).all()


def test_a_look_while_training_is_short():
    assert WaveNetSampling().for_preview().seconds == 0.4
    assert WaveNetSampling(seconds=0.1).for_preview().seconds == 0.1
    assert WaveNetSampling(seconds=9).for_preview().seconds == 0.4


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    folder = tmp_path_factory.mktemp("wavenet")
    dataset = sound_dataset(folder / "dataset")
    asked = {"max_steps": 120, "seed": 1, "params": TONES}
    return dataset, train_small(WAVENET, dataset, folder / "run", **asked)


def test_the_loss_is_a_mean_over_samples_not_over_windows(trained):
    dataset, version = trained
    _, network = load(version.folder, device=CPU)
    feed = WaveNet.feed(network.params, dataset, seed=1, files=version.folder)
    total = count = 0.0
    for data, labels in feed.validation():
        field = feed.receptive
        for window, label in zip(torch.from_numpy(data), torch.from_numpy(labels), strict=True):
            start, length, row = window[:1], window[1:2], window[2:]
            with torch.inference_mode():
                codes = torch.maximum(row, ~row)[None, :-1]
                logits = network(codes, start, length, label[None])[0]
            chances = torch.log_softmax(logits, -1)
            heard = row[field:] >= 0
            total -= float(chances[heard, row[field:][heard]].sum())
            count += int(heard.sum())
    assert count == dataset_length(dataset, VALIDATION)
    assert version.metrics["loss"] == pytest.approx(total / count, rel=1e-4)
    assert version.metrics["bits_per_sample"] == pytest.approx(total / count / np.log(2), rel=1e-4)


def test_sounds_of_each_class_have_its_pitch_and_last_as_the_data_do(trained):
    _, version = trained
    _, network = load(version.folder, device=CPU)
    for label, pitch in ((0, 50), (1, 120)):
        sampling = WaveNetSampling(seconds=0.3, micro_batch=16, temperature=0.8)
        rows = [Row(index, label, seed=2) for index in range(16)]
        sounds = Sampler(network, sampling).make(rows)
        padded = np.stack([np.pad(sound, (0, 300 - len(sound))) for sound in sounds])
        power = (np.abs(np.fft.rfft(padded)) ** 2).mean(0)
        assert abs(power.argmax() / 0.3 - pitch) < 15
        assert max(len(sound) for sound in sounds) < 120, "as the data do"


def test_unlabelled_sounds_are_learnt_and_made(tmp_path):
    dataset = sound_dataset(tmp_path / "dataset", labels=())
    version = train_small(WAVENET, dataset, tmp_path / "run", max_steps=2)
    [sample] = make(WAVENET, load(version.folder, device=CPU)[1], 0, 1)
    assert sample.label is None


def test_finetuning_takes_up_how_long_the_new_sounds_are_and_how_they_end(trained, tmp_path):
    dataset, version = trained
    wanted = SoundStatistics.load(version.folder)
    SoundStatistics(seconds=9, silence=900).save(version.folder)
    asked = {"max_steps": 1, "parent": version.folder, "params": TONES}
    child = train_small(WAVENET, dataset, tmp_path / "child", **asked)
    assert SoundStatistics.load(child.folder) == wanted


def test_small_parameters_are_those_of_the_kit():
    assert receptive_field(small_params(WAVENET)) == 8


def dataset_length(dataset: LocalDataset, split: int) -> int:
    lengths = np.diff(dataset.array("offsets"))
    return int(lengths[dataset.array("split") == split].sum())
