"""Confined work: what strangers wrote is tried in a process that ends where it takes too much.

A program, such as a chat template or a tokenizer's regular expressions, may loop for ever or fill
the memory. Must not know what the programs are for.
"""

from worker.confined.confined import Confined, Interrupted, TooMuch

__all__ = ["Confined", "Interrupted", "TooMuch"]
