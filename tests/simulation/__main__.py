"""Run seeds, one or many: `python -m tests.simulation --seeds 1000`, `--seed 7 --trace`."""

import argparse
import sys
import time
from functools import partial

from tests.simulation.mutations import MUTATIONS
from tests.simulation.run import Simulation, broken, first_violation
from tests.simulation.world import Violation

FOUND_WITHIN = 10_000


def main() -> int:
    options = parse()
    if options.mutations:
        return find_mutations()
    if options.seed is not None:
        return run_one(options.seed, options.mutation, trace=options.trace)
    began = time.perf_counter()
    seeds = range(options.first, options.first + options.seeds)
    how = {"mutation": options.mutation, "processes": options.processes}
    found = first_violation(seeds, tell=partial(print, file=sys.stderr, flush=True), **how)
    if found is not None:
        print(f"seed {found[0]}: {found[1]}")
        return 1
    print(f"{len(seeds):,} seeds in {time.perf_counter() - began:.1f} s: no violation")
    return 0


def parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m tests.simulation", description=__doc__)
    parser.add_argument("--seed", type=int, help="run this one alone")
    parser.add_argument("--trace", action="store_true", help="print what happens to it")
    parser.add_argument("--seeds", type=int, default=1000, help="how many to run (default 1000)")
    parser.add_argument("--first", type=int, default=0, help="the first of them (default 0)")
    parser.add_argument("--processes", type=int, default=1, help="that share them (default 1)")
    parser.add_argument("--mutation", choices=MUTATIONS, help="leave this rule out")
    parser.add_argument("--mutations", action="store_true", help="leave out one rule at a time")
    return parser.parse_args()


def run_one(seed: int, mutation: str | None, *, trace: bool) -> int:
    with Simulation(print if trace else None) as simulation, broken(mutation):
        try:
            world = simulation.run(seed)
        except Violation as violation:
            print(f"seed {seed}: {violation}")
            return 1
    print(f"seed {seed}: {world.machine.step} steps, {world.machine.now:.0f} s, no violation")
    return 0


def find_mutations() -> int:
    missed = 0
    for name in MUTATIONS:
        found = first_violation(range(FOUND_WITHIN), mutation=name)
        missed += found is None
        seeds, how = (found[0] + 1, found[1].splitlines()[0]) if found else ("not in 10,000", "")
        print(f"{name:45} {seeds!s:>6}  {how:.150}", flush=True)
    return missed


sys.exit(main())
