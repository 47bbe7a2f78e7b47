"""What `make install` does before it installs anything: it makes `.venv`, or says why it cannot.

An earlier attempt is completed if what it left is sound, and made anew if not. Runs under any
Python 3, to refuse an old one by name.
"""

import shutil
import subprocess
import sys
from pathlib import Path

LOWEST, HIGHEST = (3, 11), (3, 13)  # as in `pyproject.toml`
VENV = Path(".venv")
SITE_PACKAGES = "lib/python3*/site-packages"
PROBE = "import sys, pip; print(*sys.version_info[:2])"
TORCH = "cpu"  # the one word that TORCH= takes
DISK_GB, CUDA_GB = 2.5, 5.0  # with PyTorch for CPUs, and what CUDA's libraries add


def main(torch: str) -> None:
    """Make `.venv` ready for pip; `torch` is the value of TORCH."""
    if torch not in ("", TORCH):
        sys.exit(f"TORCH={torch} is not known: give TORCH=cpu, or leave it out for CUDA")
    state = fault_of(VENV)
    if state is not None:
        refuse_interpreter(sys.version_info[:3], sys.executable)
        if VENV.exists():
            say(f"{VENV} {state}: it is made anew")
        clear = ["--clear"] if VENV.exists() else []
        if subprocess.call([sys.executable, "-m", "venv", *clear, str(VENV)]):  # noqa: S603 - our own
            sys.exit(f"{VENV} could not be made; see above, and run make install again")
    if torch and has_cuda(VENV):
        sys.exit(
            f"{VENV} has PyTorch with CUDA already: rm -rf {VENV}, then make install TORCH=cpu"
        )
    say(expectation(torch))


def fault_of(venv: Path) -> "str | None":
    """What keeps an environment from being completed by pip; None if nothing does."""
    if not (venv / "pyvenv.cfg").is_file():
        return "is no virtual environment"
    try:
        command = [str(venv / "bin" / "python"), "-c", PROBE]
        found = subprocess.check_output(  # noqa: S603 - a Python of ours
            command, stderr=subprocess.DEVNULL, text=True
        )
        version = tuple(map(int, found.split()))
    except (OSError, ValueError, subprocess.CalledProcessError):
        return "has no Python with pip that runs"
    if not LOWEST <= version <= HIGHEST:
        return f"has Python {dotted(version)}"
    script = venv / "bin" / "pip"
    if script.is_file():
        beginning = script.read_bytes()[:1000].decode(errors="replace")
        if not any(str(path / "bin") in beginning for path in (venv.absolute(), venv.resolve())):
            return "was made in another folder"
    # pip writes RECORD last, but takes a package without it for installed
    if any(not (path / "RECORD").exists() for path in venv.glob(f"{SITE_PACKAGES}/*.dist-info")):
        return "has a package that is half installed"
    return None


def refuse_interpreter(version: "tuple[int, ...]", python: str) -> None:
    """End with what to do if this Python is not one that Genmill runs on, or lacks a module."""
    if not LOWEST <= version[:2] <= HIGHEST:
        numbers = range(HIGHEST[1], LOWEST[1] - 1, -1)
        names = [f"python3.{n}" for n in numbers if runs(f"python3.{n}")]
        other = names[0] if names else "python3.12"
        remedy = f"run make install PYTHON={other}"
        if not names:
            remedy = f"install one, as by `sudo apt install {other} {other}-venv`, then {remedy}"
        sys.exit(
            f"Genmill needs Python {dotted(LOWEST)} to {dotted(HIGHEST)}, and {python} is "
            f"Python {dotted(version)}; {remedy}"
        )
    try:
        import ensurepip  # noqa: F401, PLC0415 - Debian has it in a package of its own
        import venv  # noqa: F401, PLC0415 - as above
    except ImportError as error:
        sys.exit(
            f"{python} has no module {error.name}, which makes virtual environments; run "
            f"`sudo apt install python{dotted(version[:2])}-venv`, or use another Python: "
            "make install PYTHON=..."
        )


def runs(name: str) -> bool:
    """Whether a command called `name` is a Python; a shim's may not be installed."""
    command = [name, "-c", ""]
    try:
        return subprocess.call(command, stderr=subprocess.DEVNULL) == 0  # noqa: S603 - a Python
    except OSError:
        return False


def has_cuda(venv: Path) -> bool:
    """Whether the environment has a build of PyTorch with CUDA."""
    for path in venv.glob(f"{SITE_PACKAGES}/torch/version.py"):
        lines = path.read_text(encoding="utf-8").splitlines()
        return any(line.startswith("cuda") and not line.endswith("None") for line in lines)
    return False


def expectation(torch: str) -> str:
    """What the installation will take."""
    size = f"about {DISK_GB:g} GB on disk"
    if torch:
        return f"installing into {VENV}: {size}, with PyTorch for CPUs"
    text = f"installing into {VENV}: {size}, and {CUDA_GB:g} GB more where PyTorch brings CUDA"
    if not (shutil.which("nvidia-smi") or Path("/proc/driver/nvidia").exists()):
        text += ". No NVIDIA GPU is seen here: make install TORCH=cpu leaves CUDA out"
    return text


def dotted(version: "tuple[int, ...]") -> str:
    """A version as it is written."""
    return ".".join(map(str, version))


def say(line: str) -> None:
    """Print a line at once."""
    sys.stdout.write(line + "\n")
    sys.stdout.flush()


if __name__ == "__main__":
    main(sys.argv[1] if len(sys.argv) > 1 else "")
