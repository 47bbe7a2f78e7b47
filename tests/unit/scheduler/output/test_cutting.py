"""Long values, cut for people."""

from scheduler.output.cutting import LONGEST_CELL, LONGEST_FIELD, cut_fields, cut_rows


def test_long_fields_are_cut_at_any_depth_but_for_some():
    long = "x" * 1000
    fields = {"a": long, "b": {"c": {"d": long}, "e": 5}, "error": long, "f": [1, 2], "g": None}
    cut = cut_fields(fields, but={"error"})
    assert cut["a"] == "x" * (LONGEST_FIELD - 1) + "…"
    assert cut["b"]["e"] == 5
    assert len(cut["b"]["c"]) == LONGEST_FIELD
    assert (cut["error"], cut["f"], cut["g"]) == (long, [1, 2], None)


def test_long_cells_are_cut_and_numbers_are_not():
    [row] = cut_rows([{"text": "word " * 100, "number": 10**100, "short": "a"}])
    assert len(row["text"]) <= LONGEST_CELL
    assert row["text"].endswith("…")
    assert (row["number"], row["short"]) == (10**100, "a")
