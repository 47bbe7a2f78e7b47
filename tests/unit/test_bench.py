import json
import subprocess
import sys

import pytest
from click.testing import CliRunner

from tests.bench.__main__ import main
from tests.bench.measure import compare, summary
from tests.bench.rows import FLEET, ROWS


def test_a_comparison_that_does_not_exist_is_refused_with_those_that_do():
    done = CliRunner().invoke(main, ["--only", "gpt-trainning"])
    assert done.exit_code == 2
    assert "comparison" in done.output
    assert "memory" in done.output


@pytest.mark.parametrize("name", ROWS | FLEET)
def test_every_comparison_can_be_loaded(name):
    assert callable((ROWS | FLEET)[name].load())


def test_the_sides_take_turns_and_each_counts_by_its_median():
    order = []
    ours, base = iter([3.0, 100.0, 4.0]), iter([1.0, 2.0, 2.0])

    def side(name, values):
        order.append(name)
        return next(values)

    row = compare("n", "s", lambda: side("o", ours), lambda: side("b", base), pairs=3, at_most=2)
    assert order == ["o", "b"] * 3
    assert (row.ours, row.baseline, row.ratio) == (4.0, 2.0, 2.0)
    assert (row.spread, row.pairs, row.kept) == ((2.0, 50.0), 3, True)


def test_a_row_beyond_its_bound_is_not_kept():
    assert not summary("n", "s", [(3.0, 1.0)], at_most=2).kept
    assert not summary("n", "1/s", [(3.0, 1.0)], at_least=4).kept


def test_the_rows_of_a_run_are_printed_as_a_table(tmp_path):
    rows = [summary("fast thing", "jobs/s", [(8000.0, 1000.0)], at_least=4).row()]
    rows += [summary("slow thing", "s", [(3.0, 1.0)], at_most=2).row()]
    (tmp_path / "rows.json").write_text(json.dumps(rows))
    printed = CliRunner().invoke(main, ["--table", str(tmp_path / "rows.json")]).output
    assert "| fast thing | 8,000 | 1,000 | jobs/s | 8.00 | 8.00 to 8.00 | ≥ 4 |  |" in printed
    assert "≤ 2 | missed |" in printed


def test_loading_the_benchmarks_loads_no_torch():
    code = "import sys, tests.bench.__main__; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
