"""Whether a model can make samples from the images that a generate job names."""

from collections.abc import Mapping, Sequence
from typing import Any

from db.errors import Refused
from db.tables import DatasetVersion
from worker.networks.family import Family
from worker.specs import Generate, parse_params


def check_given(
    spec: Generate, family: Family, images: DatasetVersion, *, shape: Mapping[str, Any]
) -> None:
    """Refuse images that the family, the model or the sampling settings do not take.

    `spec` is pinned and `images` is its dataset; `shape` is the model's, as `Shape.to_json` has it.
    """
    if not family.takes_images:
        raise Refused(f"family {family.name!r} takes no images: leave the dataset out")
    if images.kind != "image":
        raise Refused(
            f"family {family.name!r} takes images, and {spec.dataset} is a {images.kind} dataset"
        )
    found = images.summary["shape"]
    for key in ("size", "channels"):
        if found[key] != shape[key]:
            raise Refused(
                f"the images of {spec.dataset} have {key} {found[key]}, and those of {spec.model} "
                f"{shape[key]}: add them again as a dataset that fits"
            )
    if spec.label is None:
        _check_labels(spec, known=shape["labels"], found=images.summary["labels"])
    sampling = parse_params(family.sampling, spec.params, what=f"sampling from {family.name}")
    sampling.check_images(found["size"])


def _check_labels(spec: Generate, *, known: Sequence[str], found: Sequence[str]) -> None:
    """A conditional model must know what it is shown."""
    if not known or (found and set(found) <= set(known)):
        return
    lacking = f"labels {sorted(set(found) - set(known))[:10]} that it does not know"
    raise Refused(
        f"{spec.model} was trained with labels, and {spec.dataset} has "
        f"{lacking if found else 'none'}: say what its images show by a label; "
        f"known: {', '.join(known)}"
    )
