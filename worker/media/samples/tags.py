"""Metadata that a sample's file carries in the formats of other people's readers."""

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Tag:
    """One statement about a sample, such as its copyright.

    `name` is what it is called where names are free: a PNG text chunk, a key of a JSON line.
    `xmp` is its XMP property with the prefix, one of `worker.media.samples.xmp.NAMESPACES`; none if
    it has none. A medium may have further places for it, by its name.
    """

    name: str
    text: str
    xmp: str = ""
