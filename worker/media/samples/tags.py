"""What a sample's file says of itself to other people's readers, and to people."""

from dataclasses import dataclass

# the names of tags that a medium may have further places for
AIGC, COPYRIGHT = "AIGC", "Copyright"


@dataclass(frozen=True, slots=True)
class Tag:
    """One statement about a sample in its metadata, such as its copyright.

    `name` is what it is called where names are free: a PNG text chunk, a key of a JSON line.
    `xmp` is its XMP property with the prefix, one of `worker.media.samples.xmp.NAMESPACES`; none if
    it has none.
    """

    name: str
    text: str
    xmp: str = ""


@dataclass(frozen=True, slots=True)
class Label:
    """A label that people see, or hear, without any reader."""

    text: str
    share: float  # of a picture's shortest side that its letters are high
