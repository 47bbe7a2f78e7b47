"""The gate: whether a version is better than the champion, by a policy.

Pure functions of the arrays and numbers of two evaluations and a policy: equal inputs give an equal
verdict, byte for byte. Knows no database, store, clock or model.
"""
