"""The table of faults adds up what several processes have counted."""

import json

from tests.chaos.table import Row, Table


def counted(fault: str, *, slowest_s: float) -> Table:
    table = Table()
    row = table.row(fault, bound_s=10.0)
    row.inject(3)
    row.recovered()
    row.jobs, row.lost, row.twice, row.slowest_s = 4, 1, 2, slowest_s
    return table


def test_rows_of_several_processes_are_added_up(tmp_path) -> None:
    table = Table()
    for each in (counted("a", slowest_s=2.0), counted("a", slowest_s=1.0)):
        table.add(each.data())
    table.add(counted("b", slowest_s=3.0).data())
    table.write(tmp_path / "table.json")
    found = [Row(**each) for each in json.loads((tmp_path / "table.json").read_text())]
    assert found == [
        Row("a", bound_s=10.0, injected=6, jobs=8, lost=2, twice=4, slowest_s=2.0),
        Row("b", bound_s=10.0, injected=3, jobs=4, lost=1, twice=2, slowest_s=3.0),
    ]
    assert "0.20" in table.lines()[1]
