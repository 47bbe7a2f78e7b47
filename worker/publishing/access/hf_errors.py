"""What errors of huggingface_hub, and of hf_xet that uploads for it, mean for a target.

Their texts may hold signed addresses, and are not repeated where they are about an upload.
"""

import re
import traceback

from worker.publishing.base import TargetAway

# hf_xet tells the kind of an error by how its text begins; those of a task that failed before, and
# of one in the background, are a RuntimeError with the text of the first one inside
_XET = re.compile(
    r"(?:Previous task error: |Task error: )*"
    r"(?P<kind>Network error|Rate limited|Server error|Timeout|Authentication error): "
)
_STATUS = re.compile(r"HTTP status \w+ error \((\d{3})\b")
_REFUSED = {"401", "403"}


def outage(error: BaseException, where: object) -> TargetAway | None:
    """The error for one of HTTP or of the network; None for any other."""
    if (found := _of_xet(error, where)) is not None:
        return found
    if _is_of_network(error):
        return TargetAway(f"{where} does not answer: {error}")
    cause = error.__cause__ or error.__context__
    if type(error) is not RuntimeError or not _is_of_network(cause):
        return None
    answer = getattr(cause, "response", None)
    told = f", answered with {answer.status_code}" if answer is not None else ""
    return TargetAway(f"{where}: an upload failed{told}")


def is_of_arguments(error: BaseException) -> bool:
    """Whether the library refused how it was called, which no other answer can change.

    Its methods say that themselves; answers are read by what they call.
    """
    *_, (innermost, _) = traceback.walk_tb(error.__traceback__)
    return type(error) is ValueError and innermost.f_code.co_qualname.startswith("HfApi.")


def _of_xet(error: BaseException, where: object) -> TargetAway | None:
    """The error for one of hf_xet whose kind is known."""
    if not isinstance(error, RuntimeError | ConnectionError | TimeoutError | PermissionError):
        return None
    text = str(error)
    found = _XET.match(text)
    if found is None:
        return None
    kind, answered = found["kind"], _STATUS.search(text)
    told = f", answered with {answered[1]}" if answered else ""
    refused = kind == "Authentication error" or (answered and answered[1] in _REFUSED)
    remedy = "check its secrets, and what they allow" if refused else None
    return TargetAway(f"{where}: an upload failed ({kind.lower()}){told}", remedy=remedy)


def _is_of_network(error: BaseException | None) -> bool:
    """Whether an error is one of HTTP or of the network; the library has an httpx of its own."""
    from huggingface_hub.errors import HfHubHTTPError  # noqa: PLC0415 - of an extra

    told = isinstance(error, HfHubHTTPError | ConnectionError | TimeoutError)
    return told or type(error).__module__.startswith("httpx")
