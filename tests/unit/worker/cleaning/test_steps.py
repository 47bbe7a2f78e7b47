"""Steps that see one item at a time: what they change, what they leave out."""

import random
import re
from collections import Counter

import numpy as np
import pytest

from db.errors import Refused
from tests.planted import LOOKALIKES, personal_data
from worker.cleaning.augmentations import check_augmentations, parse_augmentations
from worker.cleaning.blank import BlankImages, BlankSounds, BlankTexts
from worker.cleaning.denoise import MedianFilter, NonLocalMeans, SpectralGate
from worker.cleaning.languages import language_of
from worker.cleaning.loudness import Loudness, lufs, parse_loudness, rms_dbfs
from worker.cleaning.personal import KINDS, MaskPersonal, mask
from worker.cleaning.recipe import Recipe
from worker.cleaning.steps import Chain
from worker.cleaning.text import CleanText
from worker.source_files.members import Rejects, Unfit

RATE = 8000


@pytest.mark.parametrize(
    ("step", "content"),
    [
        (BlankImages(), np.full((8, 8, 3), 7, np.uint8)),
        (BlankSounds(), np.zeros(100, np.int16)),
        (BlankSounds(), np.full(100, -300, np.int16)),
        (BlankTexts(), {"text": " \n\t"}),
        (BlankTexts(), {"messages": [{"role": "user", "content": " "}]}),
        (CleanText(), {"text": "All rights reserved.\n"}),
    ],
)
def test_what_shows_nothing_is_left_out(step, content):
    with pytest.raises(Unfit):
        step(content)


def test_a_chain_counts_what_each_step_saw_and_left_out():
    rejects, chain = Rejects(), Chain([BlankTexts()], min_size=3, unit="characters")
    for text in ("fine", "x", "     ", "good"):
        try:
            chain({"text": text}, len(text))
        except Unfit as error:
            rejects.add(text, error)
    rejects.add("broken", "not UTF-8: byte 0xff at offset 3")
    read, size, blank = (each.to_json() for each in chain.reports(rejects))
    assert (read["in"], read["out"], read["rejects"]) == (5, 4, {"not UTF-N": 1})
    assert (size["in"], size["out"], size["parameters"]["min"]) == (4, 3, 3)
    assert (blank["in"], blank["out"], list(blank["rejects"].values())) == (3, 2, [1])


def test_text_is_repaired_and_its_language_told():
    step = CleanText()
    damaged = (
        "The cafe\u0301 donâ€™t\x07 know what to do with it.\nPage 3 of 10\nAll rights reserved."
    )
    assert step({"text": damaged}) == {"text": "The café don\u2019t know what to do with it."}
    found = step.found()
    assert found["languages"] == {"English": 1}
    assert {
        found[name] for name in ("mojibake", "unicode", "control characters", "boilerplate")
    } == {1}


@pytest.mark.parametrize(
    ("text", "language"),
    [
        ("It is a truth that is known to all of us in this town.", "English"),
        ("Es ist nicht leicht, das auf einen Blick zu sehen, und auch nicht schön.", "German"),
        ("Il est difficile de dire que ce n'est pas pour vous dans la ville.", "French"),
        ("春眠不觉晓、处处闻啼鸟。", "Chinese"),
        ("吾輩は猫である。名前はまだ無い。", "Japanese"),
        ("Я вас любил", "Cyrillic script"),
        ("60:4 62:4", "unknown"),
        ("xyzzy plugh", "unknown"),
    ],
)
def test_a_language_is_named_by_its_script_or_its_small_words(text, language):
    assert language_of(text) == language


@pytest.mark.parametrize("kind", KINDS)
def test_planted_personal_data_is_masked(kind):
    chance, found = random.Random(kind), Counter()
    texts = [f"Write to {personal_data(kind, chance)} before noon." for _ in range(200)]
    masked = [mask(text, found) for text in texts]
    assert sum(each == f"Write to [{kind}] before noon." for each in masked) >= 190


def test_what_only_looks_like_personal_data_stays():
    found = Counter()
    for each in LOOKALIKES:
        mask(f"There was {each}, they said.", found)
    assert sum(found.values()) <= 1


def test_every_text_of_a_conversation_is_masked_and_counted():
    step = MaskPersonal()
    row = {
        "messages": [
            {"role": "user", "content": "I am at a@b.org"},
            {"role": "assistant", "content": None},
        ]
    }
    assert step(row)["messages"][0]["content"] == "I am at [e-mail]"
    assert step.found() == {"e-mail": 1}


def test_denoising_brings_a_noisy_picture_nearer_to_the_clean_one():
    rng = np.random.default_rng(0)
    clean = np.repeat(np.repeat(rng.integers(0, 255, (4, 4, 3)), 16, 0), 16, 1).astype(float)
    noisy = np.clip(clean + rng.normal(0, 15, clean.shape), 0, 255).astype(np.uint8)
    for step in (MedianFilter(), NonLocalMeans()):
        made = step(noisy)
        assert made.shape == clean.shape
        assert np.square(made - clean).mean() < 0.4 * np.square(noisy - clean).mean()


def test_a_picture_without_noise_stays_as_it_is():
    flat = np.full((16, 16, 1), 90, np.uint8)
    assert (NonLocalMeans()(flat) == flat).all()


def test_spectral_gating_takes_steady_noise_away():
    t = np.arange(2 * RATE) / RATE
    tone = np.where(t % 1 < 0.5, np.sin(2 * np.pi * 440 * t), 0) * 8000
    noisy = (tone + np.random.default_rng(0).normal(0, 400, len(t))).astype(np.int16)
    made = SpectralGate()(noisy)
    assert len(made) == len(noisy)
    assert np.std(made - tone) < 0.6 * np.std(noisy - tone)


def test_loudness_is_that_of_the_standard():
    # BS.1770: a full-scale sine of 997 Hz in one channel is -3.01 LUFS
    t = np.arange(5 * 48_000) / 48_000
    assert lufs(np.sin(2 * np.pi * 997 * t), 48_000) == pytest.approx(-3.01, abs=0.02)
    assert rms_dbfs(np.sin(2 * np.pi * 997 * t)) == pytest.approx(-3.01, abs=0.01)


@pytest.mark.parametrize(
    ("level", "measure"), [("-30LUFS", lambda s: lufs(s, RATE)), ("-30 dbfs", rms_dbfs)]
)
def test_sounds_come_to_one_loudness_without_clipping(level, measure):
    step = Loudness(*parse_loudness(level))
    step.rate = RATE
    sound = (np.sin(np.arange(RATE)) * 900).astype(np.int16)
    assert measure(step(sound) / 32768) == pytest.approx(-30, abs=0.1)
    spiky = np.zeros(RATE, np.int16)
    spiky[::4000] = 20_000
    assert np.abs(step(spiky)).max() <= 32_767
    assert step.found() == {"limited by clipping": 1}


@pytest.mark.parametrize("wrong", ["loud", "-20", "-20dB", "5LUFS", "-90LUFS"])
def test_a_loudness_without_level_or_unit_is_refused(wrong):
    with pytest.raises(Refused, match="-23LUFS"):
        parse_loudness(wrong)


def test_augmentations_are_names_and_numbers_within_bounds():
    bounds = {"flip": (1, 1), "shift": (1, 64)}
    found = parse_augmentations("flip, shift=2")
    assert found == {"flip": 1.0, "shift": 2.0}
    check_augmentations(found, "image", bounds)
    for wrong, says in (("shfit=2", "did you mean 'shift'"), ("shift=99", "use 1 to 64")):
        with pytest.raises(Refused, match=re.escape(says)):
            check_augmentations(parse_augmentations(wrong), "image", bounds)
    for wrong in ("shift=x", "flip,flip"):
        with pytest.raises(Refused):
            parse_augmentations(wrong)


def test_a_recipe_keeps_what_was_asked_for():
    recipe = Recipe(size=8, split=(80, 10, 10), near_duplicates="drop")
    assert Recipe.from_json(recipe.given()) == recipe
    assert recipe.of_medium() == {"size": 8}
    with pytest.raises(Refused, match="known: drop, keep"):
        Recipe(blank="no")
