"""The numbers of a model version: what it makes, measured against held-out data.

A protocol says how (`protocol`); a judge, a small network trained on the dataset version, turns
pictures into features (`judge`); samples are made by the engine and never stored; each medium has
its own numbers; the report shows them. The formulas are those of `worker.metrics`. Knows no queue,
database or store: whoever evaluates passes a `Monitor` and gets numbers, arrays and files back.
"""
