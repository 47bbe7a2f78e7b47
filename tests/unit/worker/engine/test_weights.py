import errno
import json
import pickle
import resource
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch

from db.errors import BadInput, NonFinite, NotFound, NotSupportedHere, Refused
from tests.families.kit import small_params
from worker.data.dataset import Shape
from worker.engine.tensors import read_tensors, write_tensors
from worker.engine.weights import load, save
from worker.families import find_family
from worker.networks.network import Network
from worker.networks.version_folder import CONFIG, WEIGHTS

CPU = torch.device("cpu")
VAE = find_family("vae")


class Canary:
    """Writes a file when it is unpickled."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> tuple[object, tuple[Path]]:
        return Path.touch, (self.path,)


@pytest.fixture
def network() -> Network:
    torch.manual_seed(0)
    shape = Shape("image", labels=("早", "b"), size=12, channels=1)
    return VAE.network()(small_params(VAE, beta=2.0), shape)


@pytest.fixture
def folder(network: Network, tmp_path: Path) -> Path:
    save(network, tmp_path, family=VAE)
    return tmp_path


def test_folder_gives_back_the_same_network(network: Network, folder: Path) -> None:
    family, again = load(folder, device=CPU)
    assert family is VAE
    assert (again.params, again.shape) == (network.params, network.shape)
    assert not again.training
    assert all(torch.equal(a, b) for a, b in _pairs(network, again))


def test_equal_networks_make_equal_files(network: Network, folder: Path, tmp_path: Path) -> None:
    (tmp_path / "again").mkdir()
    save(network, tmp_path / "again", family=VAE)
    for name in (WEIGHTS, CONFIG):
        assert (folder / name).read_bytes() == (tmp_path / "again" / name).read_bytes()


def test_weights_that_are_not_finite_are_never_written(network: Network, tmp_path: Path) -> None:
    with torch.no_grad():
        network.get_parameter("encoder.body.0.weight").view(-1)[0] = torch.inf
    with pytest.raises(NonFinite, match=r"encoder\.body\.0\.weight"):
        save(network, tmp_path, family=VAE)
    assert list(tmp_path.iterdir()) == []


def test_pickle_for_weights_is_refused_and_never_run(folder: Path) -> None:
    canary = folder / "canary"
    (folder / WEIGHTS).write_bytes(pickle.dumps(Canary(canary)))
    with pytest.raises(BadInput, match=r"model\.safetensors cannot be read as safetensors"):
        load(folder, device=CPU)
    assert not canary.exists()


def test_cut_weights_are_refused(folder: Path) -> None:
    whole = (folder / WEIGHTS).read_bytes()
    (folder / WEIGHTS).write_bytes(whole[:-100])
    with pytest.raises(BadInput, match="cannot be read"):
        load(folder, device=CPU)


def test_good_weights_are_not_condemned_where_a_device_fails(
    folder: Path, network: Network, monkeypatch
) -> None:
    def load_nothing(*_: object) -> None:
        raise RuntimeError("an exception occurred: ('CUDA error: unspecified launch failure',)")

    monkeypatch.setattr(type(network), "load_state_dict", load_nothing)
    with pytest.raises(torch.AcceleratorError, match="launch failure"):
        load(folder, device=CPU)


def test_weights_of_another_network_are_refused(folder: Path) -> None:
    write_tensors(folder / WEIGHTS, {"x": torch.zeros(1)}, about={})
    with pytest.raises(BadInput, match="does not fit its configuration"):
        load(folder, device=CPU)


@pytest.mark.parametrize(
    ("change", "error", "message"),
    [
        ({"family": "vea"}, NotFound, "did you mean 'vae'"),
        ({"genmill": 99}, NotSupportedHere, "format 99"),
        ({"params": {"latnet": 1}}, Refused, "did you mean 'latent'"),
    ],
)
def test_configuration_that_does_not_hold_is_refused(
    folder: Path, change: dict[str, object], error: type[Exception], message: str
) -> None:
    config = json.loads((folder / CONFIG).read_text("utf-8"))
    (folder / CONFIG).write_text(json.dumps(config | change), "utf-8")
    with pytest.raises(error, match=message):
        load(folder, device=CPU)


def test_tensors_that_share_memory_are_written_apart(tmp_path: Path) -> None:
    tied = torch.arange(6.0).view(2, 3)
    write_tensors(tmp_path / "tied", {"a": tied, "b": tied.T}, about={"n": [1]})
    tensors, about = read_tensors(tmp_path / "tied")
    assert torch.equal(tensors["a"], tied)
    assert torch.equal(tensors["b"], tied.T)
    assert about == {"n": [1]}


def _pairs(a: Network, b: Network) -> list[tuple[torch.Tensor, torch.Tensor]]:
    return list(zip(a.state_dict().values(), b.state_dict().values(), strict=True))


@pytest.fixture
def small_files() -> Iterator[None]:
    """No file may grow over 64 KiB, as on a disk that is nearly full."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (1 << 16, before[1]))
    yield
    resource.setrlimit(resource.RLIMIT_FSIZE, before)


def test_a_full_disk_is_the_system_s_own_error(tmp_path, small_files):
    with pytest.raises(OSError, match="File too large") as full:
        write_tensors(tmp_path / "big", {"x": torch.zeros(1 << 16)}, about={})
    assert full.value.errno == errno.EFBIG
    assert list(tmp_path.iterdir()) == []
