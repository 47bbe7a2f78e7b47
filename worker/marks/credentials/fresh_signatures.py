"""What was signed a moment ago, so that reading a file back need not check its signature again."""

from itertools import count

CHECKED = 256  # one signature in so many is checked by the public key
KEPT = 2048  # manifests at most, of 2 to 3 kB each

# the number of a sample, where its manifest is, the digest of what that binds, and of its line
Signed = tuple[int, int, bytes, bytes]


class FreshSignatures:
    """The manifests that this process signed and has not read back yet.

    Checking a signature by the public key takes three times as long as making it. Of one that was
    just made of exactly these bytes it tells whether the key and the library work, not whether this
    file is right. So a file that is read back has to hold the manifest that was made of its own
    digest and number, byte for byte. The first of `CHECKED` is not kept: it is checked in full,
    every digest and the signature, as is all that was made elsewhere or was read before.
    """

    def __init__(self) -> None:
        self._made: dict[Signed, bytes] = {}
        self._number = count()

    def add(self, signed: Signed, manifest: bytes) -> None:
        """A manifest was made."""
        if next(self._number) % CHECKED == 0:
            return
        if len(self._made) >= KEPT:
            self._made.clear()  # of files that were never read back
        self._made[signed] = manifest

    def has(self, signed: Signed, manifest: bytes) -> bool:
        """Whether this manifest was made. True only once."""
        return self._made.pop(signed, None) == manifest
