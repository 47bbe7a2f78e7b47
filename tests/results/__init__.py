"""The figures of docs/results.md: the real commands on real data, by `make results`."""

from worker.settings import limit_threads

limit_threads(0)  # before torch is imported: a baseline's threads wait as a worker's do
