"""A deterministic simulation of Genmill, in the manner of FoundationDB.

Workers, schedulers and clients run the real code on a simulated clock, database, store and broker,
which fail as a seed says. What is checked: `invariants` after each transaction, the auditor at the
end, and that every job ends soon after the faults cease. `python -m tests.simulation --help`.
"""
