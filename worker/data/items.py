"""What decides which items of a dataset stay and in which split: some bytes an item."""

import hashlib
from array import array

import numpy as np
import numpy.typing as npt

from worker.data.split import hash_of


class ItemIndex:
    """The hash, content, split and label of each item in the order of writing: 25 bytes an item.

    The first `inherited` items are those of the version that is updated.
    """

    def __init__(self, inherited: int = 0) -> None:
        self._hashes, self._contents = array("Q"), array("Q")
        self._given, self._labels = array("B"), array("q")
        self.inherited = inherited

    def add(self, data: bytes, label: int | None, split: int, *, beside: bytes = b"") -> None:
        """Add an item: its content, its label's number, its split's code.

        `beside` is what makes it another item in spite of equal content, such as a caption.
        """
        whole = hashlib.sha256(data)
        self._hashes.append(int.from_bytes(whole.digest()[:8], "big"))
        whole.update(b"\0%d\0%b" % (-1 if label is None else label, beside))
        self._contents.append(int.from_bytes(whole.digest()[:8], "big"))
        self._note(label, split)

    def add_hashed(self, number: int, data: bytes, split: int) -> None:
        """Add an item without a label whose split follows from a hash of its own."""
        self._hashes.append(number)
        self._contents.append(hash_of(data))
        self._note(None, split)

    def _note(self, label: int | None, split: int) -> None:
        self._given.append(split)
        if label is not None:
            self._labels.append(label)

    def __len__(self) -> int:
        return len(self._hashes)

    @property
    def hashes(self) -> npt.NDArray[np.uint64]:
        """From which the splits follow."""
        return np.frombuffer(self._hashes, np.uint64)

    @property
    def contents(self) -> npt.NDArray[np.uint64]:
        """Equal for items that are equal in all."""
        return np.frombuffer(self._contents, np.uint64)

    @property
    def given(self) -> npt.NDArray[np.uint8]:
        """The stated split of each, or `UNASSIGNED`."""
        return np.frombuffer(self._given, np.uint8)

    @property
    def labels(self) -> npt.NDArray[np.int64]:
        """The number of each item's label; empty if there are none."""
        return np.frombuffer(self._labels, np.int64)
