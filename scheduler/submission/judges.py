"""The folders of image models that evaluations name as judges, looked at before anything is stored.

A folder that this machine does not have is one of a worker's.
"""

import logging
from pathlib import Path

from worker.networks.image_model import ImageModel, read_image_model
from worker.specs import Evaluate, Spec

log = logging.getLogger(__name__)


class JudgeFolders:
    """Looks at each folder once.

    With `loading`, its model is built too, on no device, which imports PyTorch where that is
    installed.
    """

    def __init__(self, *, loading: bool) -> None:
        self._loading = loading
        self._seen: set[str] = set()

    def refuse_unusable(self, spec: Spec) -> None:
        """Raise `BadInput` if a spec names a folder that cannot judge; warn of what is assumed."""
        if not isinstance(spec, Evaluate) or spec.judge is None or spec.judge.folder in self._seen:
            return
        folder = Path(spec.judge.folder)
        if folder.exists():
            found = read_image_model(folder)
            if self._loading:
                _refuse_unloadable(found)
            if found.warning:
                log.warning("%s", found.warning)
        self._seen.add(spec.judge.folder)


def _refuse_unloadable(found: ImageModel) -> None:
    try:
        from worker.evaluation import image_models  # noqa: PLC0415 - loads transformers
    except ModuleNotFoundError:
        return
    image_models.refuse_unusable(found)
