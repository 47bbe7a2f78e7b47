import json
import subprocess
import sys
from datetime import timedelta

import pytest
from click.testing import CliRunner

from db import jobs
from db.columns import new_id
from db.session import clock
from tests.bench.__main__ import main
from tests.bench.fill import Shape, add_worker, fill
from tests.bench.fleet import ended_once, unfinished
from tests.bench.measure import compare, summary
from tests.bench.protocol import FleetMember, choose, claim_together
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


@pytest.mark.parametrize("shape", [Shape(1, 6), Shape(6), Shape(6, batches=2), Shape(2, 3)])
def test_a_filled_record_is_one_that_workers_can_choose_from(each_database, shape):
    found = fill(each_database, shape)
    boot = add_worker(each_database)
    assert len(found) == shape.jobs
    for _ in range(2):  # the first time is undone
        choose(each_database, boot, 6)
        claim_together(each_database, boot, 6)


def test_the_jobs_of_a_filled_record_are_listed_and_counted(each_database):
    found = fill(each_database, Shape(6))
    with each_database.read() as session:
        now = clock(session)
        day, half_an_hour = timedelta(days=1), timedelta(minutes=30)  # they are an hour old
        assert [each.id for each in jobs.listing(session, since=now - day)] == found[::-1]
        assert jobs.listing(session, since=now - half_an_hour) == []
        assert jobs.counts(session)["queued"] == 6


def test_a_simulated_worker_ends_each_shard_once(database):
    fill(database, Shape(jobs=1, shards=3, samples=7))
    member = FleetMember(database, new_id(), lease_s=60)
    member.start()
    member.beat()
    while claim := member.claim():
        assert member.renew(claim)
        assert member.commit(claim)
        assert not member.commit(claim)  # it is over
        assert not member.renew(claim)
    assert not unfinished(database)
    assert ended_once(database) == 3


def test_the_generator_of_the_baselines_is_that_of_the_family(tmp_path):
    import torch

    from tests.bench.plain_generator import load_generator
    from worker.data.dataset import Shape as ImageShape
    from worker.engine.weights import save
    from worker.families import find_family

    family = find_family("gan")
    labels = tuple("0123456789")
    network = family.network()(family.params(), ImageShape("image", labels, 28, 1)).eval()
    save(network, tmp_path, family=family)
    plain = load_generator(tmp_path)
    noise, classes = torch.randn(3, plain.latent), torch.tensor([0, 4, 9])
    with torch.inference_mode():
        torch.testing.assert_close(plain(noise, classes), network.average(noise, classes))
