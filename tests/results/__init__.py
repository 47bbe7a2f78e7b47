"""The quality figures of the README: the real commands on real data, by `make results`."""
