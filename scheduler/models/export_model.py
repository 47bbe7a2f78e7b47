"""Exporting a version into a folder: the Hugging Face layout, a model card, and digests."""

from pathlib import Path
from tempfile import TemporaryDirectory

from db import models
from db.errors import Refused
from db.tables import Model, ModelVersion
from scheduler.models.card import CARD, make_card
from scheduler.models.folder_check import SUMS
from worker.families import find_family
from worker.files import atomic_write, digest_of, disk_errors, inside
from worker.networks.version_folder import CONFIG
from worker.services import Services

Digests = dict[str, str]  # SHA-256 by file name


def export_model(
    services: Services, reference: str, folder: Path, *, merge: bool = False
) -> list[Path]:
    """Write the version that `reference` names into `folder`; return the files, digests checked.

    With `merge`, an adapter is merged into its base's weights; `Refused` where there is none.
    `SHA256SUMS` lists the digests, for an import or `sha256sum -c` to check.
    """
    with services.database.read() as session:
        model, version = models.resolve(session, reference)
    with disk_errors(folder):
        folder.mkdir(parents=True, exist_ok=True)
        if merge:
            digests = _write_merged(services, model, version, folder)
        else:
            digests = _write_files(services, version, folder)
        sums = "".join(f"{sha256}  {name}\n" for name, sha256 in digests.items())
        for name, text in ((SUMS, sums), (CARD, _card_text(services, model, version, digests))):
            with atomic_write(folder / name) as file:
                file.write(text.encode())
    return [folder / name for name in (*digests, SUMS, CARD)]


def _write_files(services: Services, version: ModelVersion, folder: Path) -> Digests:
    """Write the version's files, the configuration first."""
    names = sorted(version.files, key=lambda name: (name != CONFIG, name))
    digests = {name: str(version.files[name]["sha256"]) for name in names}
    for name, sha256 in digests.items():
        services.store.fetch(version.files[name]["key"], inside(folder, name), sha256=sha256)
    return digests


def _write_merged(services: Services, model: Model, version: ModelVersion, folder: Path) -> Digests:
    layout = find_family(model.family).layout()
    if layout is None:
        raise Refused("this version has no adapter to merge", remedy="leave --merge out")
    with TemporaryDirectory(dir=folder, prefix=".merging-") as name:
        made = Path(name)
        _write_files(services, version, made)
        layout.merge(made)
        digests = {path.name: digest_of(path) for path in sorted(made.iterdir())}
        for each in digests:
            (made / each).replace(folder / each)
    return digests


def _card_text(services: Services, model: Model, version: ModelVersion, digests: Digests) -> str:
    layout = find_family(model.family).layout()
    library = layout.library(digests) if layout else "genmill"
    with services.database.read() as session:
        return make_card(session, model, version, library).text()
