"""Tags in PNG files: an XMP packet, EXIF fields and text chunks. Read from other formats too."""

import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from functools import lru_cache
from io import BytesIO
from types import MappingProxyType

from PIL import Image, UnidentifiedImageError

from db.errors import BadInput, raise_outage
from worker.media.samples import exif, xmp
from worker.media.samples.png_chunks import (
    EXIF,
    HEADER_END,
    SIGNATURE,
    chunk,
    international_chunk,
    metadata,
    text_chunk,
)
from worker.media.samples.tags import AIGC, COPYRIGHT, Tag

XMP_KEYWORD = "XML:com.adobe.xmp"
_IN_TEXT = {AIGC, COPYRIGHT}  # have a text chunk, beside those tags that have no XMP property
_IN_EXIF = MappingProxyType({COPYRIGHT: exif.COPYRIGHT, AIGC: exif.COMMENT})
_FIELDS = MappingProxyType({exif.COPYRIGHT: "EXIF Copyright", exif.COMMENT: "EXIF UserComment"})


@lru_cache(maxsize=64)
def png_places(name: str, property: str) -> tuple[str, ...]:
    """Where a PNG file has a tag, as `read_png_tags` calls the places."""
    places = [f"XMP {property}"] if property else []
    if name in _IN_EXIF:
        places.append(_FIELDS[_IN_EXIF[name]])
    if name in _IN_TEXT or not property:
        places.append(f"PNG text {name}")
    return tuple(places)


def tag_png(data: bytes, tags: Sequence[Tag]) -> bytes:
    """The file with the tags, behind the header of the picture."""
    if not tags:
        return data
    return b"".join((data[:HEADER_END], _chunks(tuple(tags)), data[HEADER_END:]))


@lru_cache(maxsize=256)  # most samples of a job have the same
def _chunks(tags: tuple[Tag, ...]) -> bytes:
    parts = []
    if packet := xmp.packet(tags):
        parts.append(international_chunk(XMP_KEYWORD, packet))
    if fields := {_IN_EXIF[tag.name]: tag.text for tag in tags if tag.name in _IN_EXIF}:
        parts.append(chunk(EXIF, exif.write_exif(fields)))
    parts += [text_chunk(tag.name, tag.text) for tag in tags if tag.name in _IN_TEXT or not tag.xmp]
    return b"".join(parts)


def read_picture_tags(data: bytes) -> dict[str, str]:
    """What a picture's metadata say, by the places of `png_places`; `BadInput` if damaged."""
    if not data.startswith(SIGNATURE):
        return _read_others(data)
    texts, blocks = metadata(data)
    if len(blocks) > 1:
        raise BadInput(f"it has {len(blocks):,} chunks of EXIF fields")
    found = {f"PNG text {name}": text for name, text in texts if name != XMP_KEYWORD}
    found |= xmp.properties_in([text.encode() for name, text in texts if name == XMP_KEYWORD])
    return found | (_fields(blocks[0]) if blocks else {})


def _read_others(data: bytes) -> dict[str, str]:
    try:
        # only what is around the pixels is read, however many there are
        with _quiet(), Image.open(BytesIO(data)) as image:
            packet, fields = image.info.get("xmp"), image.info.get("exif")
    except UnidentifiedImageError:
        raise BadInput("not a readable picture") from None
    except (OSError, ValueError, SyntaxError, Image.DecompressionBombError) as error:
        raise_outage(error)
        raise BadInput(f"not a readable picture: {error}") from None
    found = _fields(fields) if isinstance(fields, bytes) else {}
    return found | xmp.properties_in([packet] if isinstance(packet, bytes) else [])


@contextmanager
def _quiet() -> Iterator[None]:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", Image.DecompressionBombWarning)
        yield


def _fields(block: bytes) -> dict[str, str]:
    return {_FIELDS[number]: text for number, text in exif.read_exif(block).items()}
