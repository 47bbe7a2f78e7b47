"""`make install`: which interpreters it refuses, what of an earlier attempt it keeps."""

import os
import subprocess
import sys
import tomllib
from importlib.util import module_from_spec, spec_from_file_location
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
VERSION = f"python{sys.version_info.major}.{sys.version_info.minor}"


def loaded():
    spec = spec_from_file_location("environment", ROOT / ".ci" / "environment.py")
    module = module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


environment = loaded()


@pytest.fixture
def venv(tmp_path) -> Path:
    """A sound environment with pip and one package, without the time that making one takes."""
    made = tmp_path / "venv"
    packages = made / "lib" / VERSION / "site-packages"
    for folder in (made / "bin", packages / "pip", packages / "one-1.0.dist-info"):
        folder.mkdir(parents=True)
    (made / "pyvenv.cfg").write_text(f"home = {Path(sys.executable).resolve().parent}\n")
    (made / "bin" / "python").symlink_to(Path(sys.executable).resolve())
    (packages / "pip" / "__init__.py").touch()
    (made / "bin" / "pip").write_text(f"#!{made}/bin/python\nfrom pip import main\n")
    (packages / "one-1.0.dist-info" / "RECORD").touch()
    return made


def test_the_versions_are_those_of_the_project():
    project = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))["project"]
    low, high = environment.LOWEST, environment.HIGHEST
    assert project["requires-python"] == f">={low[0]}.{low[1]},<{high[0]}.{high[1] + 1}"


@pytest.mark.parametrize("version", [(3, 10, 12), (3, 14, 0), (3, 6, 9)])
def test_another_python_is_refused_by_name_with_what_to_type(version, monkeypatch):
    monkeypatch.setattr(environment, "runs", lambda name: name == "python3.12")
    with pytest.raises(SystemExit) as refused:
        environment.refuse_interpreter(version, "/usr/bin/python3")
    assert refused.value.code == (
        f"Genmill needs Python 3.11 to 3.13, and /usr/bin/python3 is Python "
        f"{'.'.join(map(str, version))}; run make install PYTHON=python3.12"
    )
    monkeypatch.setattr(environment, "runs", lambda _: False)
    with pytest.raises(SystemExit, match=r"sudo apt install python3\.12 python3\.12-venv"):
        environment.refuse_interpreter(version, "/usr/bin/python3")


def test_only_a_python_that_runs_is_named(tmp_path):
    assert environment.runs(sys.executable)
    assert not environment.runs(str(tmp_path / "python3.12"))


def test_a_python_without_the_module_for_environments_is_told_with_its_package(monkeypatch):
    monkeypatch.setitem(sys.modules, "ensurepip", None)
    with pytest.raises(SystemExit, match=r"no module ensurepip.*apt install python3\.12-venv"):
        environment.refuse_interpreter((3, 12, 1), "/usr/bin/python3.12")


def test_a_sound_environment_is_kept(venv):
    assert environment.fault_of(venv) is None
    environment.refuse_interpreter(sys.version_info[:3], sys.executable)


def damage_python(venv: Path) -> None:
    (venv / "bin" / "python").unlink()
    (venv / "bin" / "python").symlink_to("/nowhere/python3.11")


DAMAGE = {
    "no virtual environment": lambda venv: (venv / "pyvenv.cfg").unlink(),
    "no Python with pip": damage_python,
    "another folder": lambda venv: (venv / "bin" / "pip").write_text("#!/old/.venv/bin/python\n"),
    "half installed": lambda venv: next(venv.rglob("RECORD")).unlink(),
}


@pytest.mark.parametrize("fault", DAMAGE)
def test_what_an_interrupted_attempt_left_is_noticed(venv, fault):
    DAMAGE[fault](venv)
    assert fault in environment.fault_of(venv)


@pytest.mark.parametrize(
    ("line", "found"),
    [
        ("cuda: Optional[str] = None", False),
        ("cuda: Optional[str] = '12.8'", True),
        ("cuda = '12.8'", True),
    ],
)
def test_a_build_of_pytorch_with_cuda_is_noticed(venv, line, found):
    assert not environment.has_cuda(venv)
    folder = venv / "lib" / VERSION / "site-packages" / "torch"
    folder.mkdir()
    (folder / "version.py").write_text(f"__version__ = '2.13.0'\n{line}\nhip = None\n")
    assert environment.has_cuda(venv) is found


def test_what_it_takes_is_said_and_how_to_take_less(monkeypatch):
    monkeypatch.setattr(environment.shutil, "which", lambda _: "/usr/bin/nvidia-smi")
    assert "TORCH=cpu" not in environment.expectation("")
    assert "GB on disk" in environment.expectation("cpu")
    monkeypatch.setattr(environment.shutil, "which", lambda _: None)
    if not Path("/proc/driver/nvidia").exists():
        assert "make install TORCH=cpu leaves CUDA out" in environment.expectation("")


def test_only_cpu_is_known():
    with pytest.raises(SystemExit, match="TORCH=cuda is not known"):
        environment.main("cuda")


@pytest.mark.parametrize("torch", ["", "cpu"])
def test_pytorch_s_own_index_is_used_for_pytorch_alone_and_only_if_asked_for(torch):
    command = ["make", "--dry-run", "--always-make", ".venv/installed", f"TORCH={torch}"]
    kept = {name: value for name, value in os.environ.items() if not name.startswith("MAKE")}
    shown = subprocess.run(
        command, cwd=ROOT, env=kept, capture_output=True, text=True, check=True
    ).stdout
    with_index = [line for line in shown.splitlines() if "--index-url" in line]
    assert len(with_index) == bool(torch)
    for line in with_index:
        assert line.endswith("--no-deps -c constraints.txt --index-url "
                             "https://download.pytorch.org/whl/cpu torch")  # fmt: skip
    assert "install -c constraints.txt -e '.[worker,dev,docs]'" in shown
