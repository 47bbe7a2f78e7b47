"""What was signed a moment ago, so that reading a file back need not check its signature again."""

from itertools import count

CHECKED = 256  # one signature in so many is checked by the public key
KEPT_BYTES = 16 << 20  # of files at most, which the caller holds too


class FreshSignatures:
    """The files that this process signed and has not read back yet.

    Checking a signature by the public key takes three times as long as making it. Of one that was
    just made it tells whether the key and the library work, not whether this file is right. So a
    file that is read back has to be the one that was signed for its number, byte for byte. The
    first of `CHECKED` is not kept: it is checked in full, every digest and the signature, as is all
    that was made elsewhere or was read before.
    """

    def __init__(self) -> None:
        self._made: dict[int, bytes] = {}
        self._bytes = 0
        self._number = count()

    def add(self, index: int, file: bytes) -> None:
        """A file was signed, of the sample of this number."""
        if next(self._number) % CHECKED == 0:
            return
        self.has(index, b"")  # of another job, which was never read back
        if self._bytes + len(file) > KEPT_BYTES:
            self._made.clear()
            self._bytes = 0
        if len(file) <= KEPT_BYTES:
            self._bytes += len(file)
            self._made[index] = file

    def has(self, index: int, file: bytes) -> bool:
        """Whether this file was signed. True only once."""
        found = self._made.pop(index, None)
        if found is None:
            return False
        self._bytes -= len(found)
        return found == file
