"""Delete and see the disk shrink: a machine is used, told what takes the space, and tidied up."""

import os
from pathlib import Path

import pytest

from tests.e2e.test_life import SMALL_PICTURES, write_pictures

pytestmark = [pytest.mark.xdist_group("e2e"), pytest.mark.slow]


def bytes_in(folder: Path) -> int:
    found = (Path(parent, name) for parent, _, names in os.walk(folder) for name in names)
    return sum(path.stat().st_size for path in found)


def test_what_is_removed_leaves_the_disk(machine, tmp_path):
    machine.do("up", "--detach")
    machine.do("dataset", "add", "shades", write_pictures(tmp_path / "shades"), "--size", "16")
    trained = machine.do(
        *("enqueue", "train", "vae", "--dataset", "shades", "--name", "shades"),
        *(*SMALL_PICTURES, "--max-steps", "20", "--wait"),
    )
    made = machine.do("enqueue", "generate", "shades", "--count", "200", "--wait")
    report = machine.genmill("doctor", "--disk", "--json").json
    totals = {row["what"]: row["size_bytes"] for row in report["totals"]}
    assert {"jobs", "models", "datasets", "database"} <= totals.keys()
    assert {("job", made), ("model", "shades:1"), ("dataset", "shades:1")} <= {
        (row["kind"], row["name"]) for row in report["largest"]
    }

    sizes = [bytes_in(machine.home / "store")]
    assert sizes[0] > totals["jobs"] + totals["models"] + totals["datasets"] - 1

    def remove(*words: str) -> int:
        """Remove after a look at what would go; how much that took from the store."""
        planned = machine.genmill(*words, "--dry-run", "--json").json
        assert bytes_in(machine.home / "store") == sizes[-1]
        machine.do(*words, "--yes")
        sizes.append(bytes_in(machine.home / "store"))
        freed = sizes[-2] - sizes[-1]
        assert freed >= planned["size_bytes"], words
        return freed

    assert machine.genmill("job", "remove", trained, "--yes").code == 2  # its version holds it
    hidden = machine.genmill("dataset", "remove", "shades:1", "--keep-artifacts")
    assert (hidden.code, bytes_in(machine.home / "store")) == (0, sizes[0])
    assert remove("job", "remove", made) > 0
    assert remove("model", "remove", "shades:1") > 0
    assert remove("job", "remove", trained) > 0
    assert remove("dataset", "remove", "shades:1") > 0
    left = [path for path in (machine.home / "store").rglob("*") if path.is_file()]
    assert [path.name for path in left if path.parent.name != ".tmp"] == ["store-id"]

    before = bytes_in(machine.home / "cache")
    assert before > 0
    machine.do("down")
    machine.do("cache", "clear")
    assert bytes_in(machine.home / "cache") == 0
    gone = {row["kind"] for row in machine.genmill("db", "removed", "--json").json}
    assert gone == {"job", "model", "dataset"}
    for words in (("job", "show", made), ("model", "show", "shades:1")):
        shown = machine.genmill(*words)
        assert (shown.code, "was removed on" in shown.err) == (4, True), shown.err
