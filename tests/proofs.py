"""The script that strangers verify proofs with, as a module."""

import importlib.util
from pathlib import Path

SCRIPT = Path(__file__).parents[1] / "docs" / "verify_proof.py"
_spec = importlib.util.spec_from_file_location("verify_proof", SCRIPT)
assert _spec is not None
assert _spec.loader is not None
verify_proof = importlib.util.module_from_spec(_spec)
_spec.loader.exec_module(verify_proof)
