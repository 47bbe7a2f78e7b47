"""The engine: trains and samples any family. Knows no queue and no family by name."""
