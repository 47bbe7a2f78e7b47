"""The model card: what an export writes and an import reads back."""

from pathlib import Path

import pytest
import yaml

from db import datasets, jobs, models
from db.session import clock
from db.tables import Evaluation


@pytest.fixture
def digits(loadable_digits):
    return loadable_digits


@pytest.fixture
def measured(services, family_tree):
    """An evaluation of digits:2 on pictures:1, whose licence is known."""
    with services.database.write() as session:
        data = datasets.resolve(session, "pictures:1")[1]
        data.summary = data.summary | {"licence": "CC0-1.0", "source": "our own pen"}
        version = models.resolve(session, "digits:2")[1]
        job = jobs.add(
            session, spec={}, spec_hash="0" * 64, kind="evaluate", model="digits", ranges=[(0, 1)]
        )
        session.add(
            Evaluation(
                version_id=version.id,
                dataset_version_id=data.id,
                job_id=job.id,
                protocol={"dataset": "pictures:1", "split": "test", "seed": 0},
                protocol_sha256="0" * 64,
                numbers={"fid": {"value": 7.25, "low": 7, "high": 8, "real": 0.9, "n": 2000}},
                items_key="k",
                items_sha256="1" * 64,
                created_at=clock(session),
            )
        )


def front_matter(card):
    """The YAML between the first two rules, read by a library."""
    return yaml.safe_load(card.split("---\n")[1])


@pytest.mark.usefixtures("measured")
def test_the_card_has_evaluation_data_licence_lineage_and_limits(genmill):
    genmill("model", "export", "digits:2", "hf")
    card = Path("hf/README.md").read_text("utf-8")
    for part in ("7.25", "0.9", "CC0-1.0", "our own pen", "tuned from digits:1", "## Limits"):
        assert part in card
    head = front_matter(card)
    assert head["license"] == "CC0-1.0"
    assert head["base_model"] == "digits:1"
    assert head["datasets"] == ["pictures:1"]
    [result] = head["model-index"][0]["results"]
    assert result["metrics"] == [{"type": "fid", "value": 7.25}]
    assert result["dataset"]["split"] == "test"


@pytest.mark.usefixtures("measured")
def test_an_import_reads_the_card_back_and_a_further_export_repeats_it(genmill):
    genmill("model", "export", "digits:2", "hf")
    genmill("model", "import", "hf", "--name", "again")
    card = genmill("model", "show", "again", "--json").json["card"]
    assert card["evaluations"][0]["numbers"]["fid"]["value"] == 7.25
    assert (card["licence"], card["dataset"]["name"]) == ("CC0-1.0", "pictures:1")
    assert card["lineage"][0]["version"] == "digits:1"
    genmill("model", "export", "again", "hf2")
    text = Path("hf2/README.md").read_text("utf-8")
    assert "7.25" in text
    assert front_matter(text)["license"] == "CC0-1.0"


@pytest.mark.parametrize(
    "front",
    [
        "",
        "genmill: not json\n",
        "genmill: [1, 2]\n",
        'genmill: {"evaluations": "none", "licence": 5, "lineage": [1, {"version": "a:1"}]}\n',
        'genmill: {"dataset": {"counts": 3, "tags": [1]}, "lineage": [{}]}\n',
        'genmill: {"evaluations": [{"numbers": {"fid": 3}, "protocol": 4}, 5]}\n',
        'genmill: {"evaluations": [{"numbers": {"fid": {"value": "high"}}}]}\n',
    ],
)
def test_a_card_that_was_edited_is_read_as_far_as_it_goes(genmill, digits, front):
    genmill("model", "export", digits, "hf")
    path = Path("hf/README.md")
    lines = path.read_text("utf-8").splitlines(keepends=True)
    path.write_text("".join(front if line.startswith("genmill: ") else line for line in lines))
    assert genmill("model", "import", "hf", "--name", "again").code == 0
    assert genmill("model", "show", "again").code == 0
    again = genmill("model", "export", "again", "hf2")
    assert (again.code, "Traceback" in again.err) == (0, False)
