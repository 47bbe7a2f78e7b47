"""Metrics of made items: pure functions of arrays and token lists.

Knows numpy and scipy: no network, no torch, no dataset, no file and no database. Whoever calls it
brings features, probabilities, labels, pictures, tokens, waveforms or notes.
"""
