"""Two versions side by side, and the policy that would decide between them."""

import io
import json
import tomllib

import numpy as np
import pytest
from PIL import Image

from db import evaluations, jobs, models, shards
from db.commits import NewArtifact
from tests.evaluations import add_dataset, add_evaluation, add_version, images, number
from worker.gate.policy import policy_for
from worker.media import MEDIA

NUMBERS = {
    "emd": number("emd", 2.0, real=0.1),
    "mind": number("mind", 0.5),
    "perceptual_diversity": number("perceptual_diversity", 3.0, real=3.0),
}


@pytest.fixture
def versions(services):
    for _ in range(4):
        add_version(services)
    add_dataset(services)
    add_evaluation(services, "digits:1", images(1, shift=0.5, numbers=NUMBERS))
    add_evaluation(services, "digits:2", images(2, numbers=NUMBERS))
    add_evaluation(services, "digits:3", images(3, shift=0.1, numbers=NUMBERS))


def test_a_comparison_has_the_numbers_of_both_and_the_interval_of_the_change(genmill, versions):
    done = genmill("model", "compare", "digits:1", "digits:2", "--json")
    assert done.code == 0, done.err
    rows = {row["metric"]: row for row in done.json["numbers"]}
    kid, emd = rows["kid"], rows["emd"]
    assert kid["low"] < kid["change"] < kid["high"] < 0
    assert kid["better"] == "digits:2"
    assert emd["low"] < emd["change"] == 0 < emd["high"]
    assert (emd["better"], emd["real"]) == (None, 0.1)
    near = rows["perceptual_diversity"]  # the interval would be that of a distance
    assert (near["wanted"], near["low"], near["better"]) == ("closer", None, None)
    found = genmill("model", "compare", "digits:2", "digits:1", "--json").json["numbers"]
    back = next(row for row in found if row["metric"] == "kid")
    assert (back["low"], back["high"]) == pytest.approx((-kid["high"], -kid["low"]), rel=1e-9)
    table = genmill("model", "compare", "digits:1", "digits:2")
    assert "A is digits:1, B is digits:2" in table.err
    assert "digits:2" in table.out


def test_versions_without_a_common_protocol_say_what_to_run(genmill, versions):
    done = genmill("model", "compare", "digits:1", "digits:4")
    assert done.code == 4
    assert "genmill enqueue evaluate digits:1 --dataset D --against digits:4 --wait" in done.err


def add_report(services, reference, colour, *, prefix=""):
    """An evaluation whose job also stored a picture."""
    items = add_evaluation(
        services, reference, images(5, numbers=NUMBERS, protocol=f"seen{colour}")
    )
    picture = io.BytesIO()
    Image.new("RGB", (60, 40), colour).save(picture, "PNG")
    blob = services.store.put_bytes("jobs/blobs", picture.getvalue())
    with services.database.write() as session:
        version = models.resolve(session, reference)[1]
        found = evaluations.newest(session, version.id)
        found.protocol_sha256 = "5" * 64
        [shard] = jobs.shards_of(session, found.job_id)
        shard.status = "queued"
        jobs.get(session, found.job_id).status = "queued"
        session.flush()
        claim = shards.claim(session, shard.id, owner="w", lease_s=60)
        for name, key, sha256 in (
            (f"{prefix}items.npz", items, found.items_sha256),
            (f"{prefix}report.png", blob.key, blob.sha256),
        ):
            artifact = NewArtifact("report", name, key, sha256, 1, "image/png")
            shards.put_artifact(session, claim, artifact)


def test_the_pictures_of_both_are_drawn_side_by_side(genmill, services, versions, tmp_path):
    add_report(services, "digits:1", "red")
    add_report(services, "digits:2", "blue", prefix="digits-2-")
    done = genmill("model", "compare", "digits:1", "digits:2", "-o", "compared")
    assert done.code == 0, done.err
    sheet = np.asarray(Image.open(tmp_path / "compared" / "sheet.png"))
    assert tuple(sheet[-1, 0]) == (255, 0, 0)
    assert tuple(sheet[-1, -1 - 20]) == (0, 0, 255)
    written = json.loads((tmp_path / "compared" / "comparison.json").read_text())
    assert written["second"] == "digits:2"


def test_a_comparison_without_pictures_says_so(genmill, versions, tmp_path):
    done = genmill("model", "compare", "digits:1", "digits:2", "-o", "compared")
    assert done.code == 0
    assert "no sheet" in done.err
    assert (tmp_path / "compared" / "comparison.json").exists()


@pytest.mark.parametrize("medium", MEDIA)
def test_the_default_policy_is_printed_complete_and_reads_back(genmill, medium, tmp_path):
    shown = genmill("policy", "show", "--medium", medium).out
    assert policy_for(medium, tomllib.loads(shown)) == policy_for(medium, {})
    (tmp_path / "policy.toml").write_text(shown)
    assert genmill("policy", "show", "policy.toml", "--medium", medium).out == shown
    assert genmill("policy", "show", "--medium", medium, "--json").json["resamples"] == 1000


def test_a_wrong_policy_file_is_refused_by_name(genmill, tmp_path):
    (tmp_path / "policy.toml").write_text('[primary]\nmetric = "kid"\nmargn = 2\n')
    done = genmill("policy", "show", "policy.toml")
    assert done.code == 2
    assert "primary has no key 'margn' (did you mean 'margin'?)" in done.err
    (tmp_path / "policy.toml").write_text("[primary")
    assert "is not TOML" in genmill("policy", "show", "policy.toml").err


def test_the_noise_between_training_seeds_is_estimated_from_three_versions(genmill, versions):
    found = genmill("policy", "noise", "digits:1", "digits:2", "digits:3", "--json").json
    assert found["metric"] == "kid"
    assert found["training_sd"] > 0.1
    shown = genmill("policy", "noise", "digits:1", "digits:2", "digits:3").out
    assert tomllib.loads(shown)["noise"]["training_sd"] == pytest.approx(found["training_sd"], 1e-3)
    assert genmill("policy", "noise", "digits:1", "digits:2").code == 2
    missing = genmill("policy", "noise", "digits:1", "digits:2", "digits:4")
    assert missing.code == 4
    assert "digits:4 has not been evaluated" in missing.err
