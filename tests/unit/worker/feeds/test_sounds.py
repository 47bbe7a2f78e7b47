"""Windows of sounds as a model reads them."""

from pathlib import Path

import numpy as np
import pytest

from db.errors import BadInput
from tests.families.kit import image_dataset, sound_dataset
from worker.data.dataset import TRAIN, VALIDATION, LocalDataset
from worker.feeds.mulaw import SILENCE, decode, encode
from worker.feeds.sounds import START_CODE, SoundFeed, Sounds, SoundStatistics

RECEPTIVE, CONTEXT = 8, 32


@pytest.fixture(scope="module")
def dataset(tmp_path_factory) -> LocalDataset:
    return sound_dataset(tmp_path_factory.mktemp("sounds") / "dataset")


def feed_of(dataset: LocalDataset, *, silence: int = 20, seed: int = 3, batch_size: int = 8):
    return SoundFeed(
        dataset,
        SoundStatistics(0.1, silence),
        receptive=RECEPTIVE,
        context=CONTEXT,
        batch_size=batch_size,
        seed=seed,
    )


def test_mu_law_is_finest_near_silence_and_loses_little():
    samples = np.arange(-32768, 32768).astype(np.int16)
    codes = encode(samples)
    error = np.abs(decode(codes) * 32768 - samples)
    assert codes.dtype == np.uint8
    assert (np.diff(codes.astype(int)) >= 0).all()
    assert encode(np.zeros(1, np.int16)).tolist() == [SILENCE]
    assert error[np.abs(samples.astype(int)) < 100].max() < 6
    assert (error <= 0.025 * np.abs(samples.astype(int)) + 6).all()


def test_every_code_stands_for_a_sample_that_has_it():
    samples = np.rint(decode(np.arange(256)) * 32767).astype(np.int16)
    assert encode(samples).tolist() == list(range(256))


def test_a_training_batch_is_a_pure_function_of_seed_and_step(dataset):
    one, two = feed_of(dataset), feed_of(dataset)
    one.train(70)
    for step in (0, 5):
        assert (one.train(step)[0] == two.train(step)[0]).all()
        assert (one.train(step)[1] == two.train(step)[1]).all()
    assert (feed_of(dataset, seed=4).train(0)[0] != one.train(0)[0]).any()


def test_what_comes_before_a_window_is_read_and_not_predicted(dataset):
    data, labels = feed_of(dataset).train(0)
    assert data.shape == (8, 2 + RECEPTIVE + CONTEXT)
    assert data.dtype == np.int64
    codes = data[:, 2:]
    assert (codes[:, :RECEPTIVE] < 0).all()
    assert (codes[:, RECEPTIVE:] >= 0).any(axis=1).all()
    assert labels is not None
    assert set(labels) == {0, 1}


def test_validation_predicts_every_sample_once_after_its_true_past(dataset):
    feed, sounds = feed_of(dataset), Sounds(dataset, VALIDATION)
    windows = np.concatenate([data for data, _ in feed.validation()])[:, 2:]
    predicted = [row[RECEPTIVE:][row[RECEPTIVE:] >= 0] for row in windows]
    wanted = [sounds.codes(i, 0, int(length)) for i, length in enumerate(sounds.lengths)]
    assert (np.concatenate(predicted) == np.concatenate(wanted)).all()
    first = windows[0]
    assert (~first[:RECEPTIVE] == START_CODE).all()
    assert (~windows[1][:RECEPTIVE] == wanted[0][CONTEXT - RECEPTIVE : CONTEXT]).all()


def test_a_window_tells_when_its_first_prediction_is_and_how_long_its_sound(dataset):
    feed, sounds = feed_of(dataset), Sounds(dataset, VALIDATION)
    told = np.concatenate([data[:, :2] for data, _ in feed.validation()])
    wanted = [(time, n) for n in sounds.lengths.tolist() for time in range(0, n, CONTEXT)]
    assert [tuple(row) for row in told.tolist()] == wanted
    started = feed.train(0)[0]
    gone = (~started[:, 2 : 2 + RECEPTIVE] == START_CODE).sum(axis=1)
    assert (gone == np.maximum(RECEPTIVE - started[:, 0], 0)).all()


def test_validation_gives_each_window_the_label_of_its_sound(dataset):
    labels = np.concatenate([labels for _, labels in feed_of(dataset).validation()])
    lengths = Sounds(dataset, VALIDATION).lengths
    counts = -(-lengths // CONTEXT)
    assert (labels == np.repeat(np.arange(32) % 2, counts)).all()


def test_training_predicts_all_samples_alike_and_the_silence_that_ends_a_sound(dataset):
    feed, silence = feed_of(dataset, silence=20, batch_size=1), 20
    predicted, epochs = 0, 20
    ends = 0
    for step in range(epochs * feed.train_count):
        row = feed.train(step)[0][0, 2 + RECEPTIVE :]
        predicted += int((row >= 0).sum())
        ends += bool((row[-silence:] == SILENCE).all())
    lasting = Sounds(dataset, TRAIN).lengths + silence
    assert predicted == pytest.approx(epochs * lasting.sum(), rel=0.15)
    assert ends > 0.3 * epochs * len(lasting), "many windows reach the end of their sound"


def test_habits_say_how_long_sounds_are_and_what_silence_ends_them(dataset, tmp_path):
    statistics = Sounds(dataset, TRAIN).statistics()
    lengths = Sounds(dataset, TRAIN).lengths
    assert statistics.seconds == pytest.approx(np.quantile(lengths, 0.95) / 1000, abs=1e-3)
    runs = []
    for i, length in enumerate(lengths):
        text = "".join(
            "s" if c == SILENCE else "." for c in Sounds(dataset, TRAIN).codes(i, 0, int(length))
        )
        runs.append(max(map(len, text.strip("s").split("."))))
    assert statistics.silence == max(runs) + 20
    statistics.save(tmp_path)
    assert SoundStatistics.load(tmp_path) == statistics


def test_habits_draw_how_long_a_sound_of_a_class_lasts(dataset):
    statistics, sounds = Sounds(dataset, TRAIN).statistics(), Sounds(dataset, TRAIN)
    high = sounds.lengths[1::2] / 1000
    drawn = [statistics.duration("high", number) for number in np.linspace(0, 1, 101)]
    assert (drawn[0], drawn[-1]) == (high.min(), high.max())
    assert np.median(drawn) == pytest.approx(np.median(high), abs=1e-3)
    of_all = sounds.lengths / 1000
    assert statistics.duration("unheard", 0) == of_all.min(), "a class of the parent's data alone"
    assert SoundStatistics(seconds=0.7).duration("high", 0.5) == 0.7


def test_damaged_habits_are_refused(tmp_path):
    (tmp_path / "sounds.json").write_text('{"loudness": 3}')
    with pytest.raises(BadInput, match=r"sounds\.json of the version cannot be read"):
        SoundStatistics.load(tmp_path)


def test_other_data_are_refused(tmp_path: Path):
    pictures = image_dataset(tmp_path / "pictures")
    for read in (feed_of, lambda dataset: Sounds(dataset, TRAIN)):
        with pytest.raises(BadInput, match="this dataset is of kind image; give one of kind audio"):
            read(pictures)
