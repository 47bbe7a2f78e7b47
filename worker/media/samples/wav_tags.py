"""Tags in WAV files: an XMP packet, ID3 texts and comments of the LIST chunk.

Sources: ISO 16684-3 for the chunk `_PMX`; ID3v2.4.0 structure and frames for the chunk `id3 `.
"""

from collections.abc import Iterator, Sequence
from types import MappingProxyType

from db.errors import BadInput
from worker.media.samples import xmp
from worker.media.samples.tags import AIGC, COPYRIGHT, Tag
from worker.media.samples.wav import MAX_ENTRIES, info_chunk, read_info, riff, riff_chunks

XMP_CHUNK, ID3_CHUNK = b"_PMX", b"id3 "
_IN_COMMENTS = MappingProxyType({COPYRIGHT: "ICOP"})
_IN_ID3 = {AIGC}  # beside those tags that have no XMP property
_UTF8 = b"\3"


def wav_places(name: str, property: str) -> tuple[str, ...]:
    """Where a WAV file has a tag, as `read_wav_tags` calls the places."""
    places = [f"XMP {property}"] if property else []
    if name in _IN_COMMENTS:
        places.append(f"RIFF {_IN_COMMENTS[name]}")
    if name in _IN_ID3 or not property:
        places.append(f"ID3 TXXX {name}")
    return tuple(places)


def tag_wav(data: bytes, tags: Sequence[Tag]) -> bytes:
    """The file with the tags, behind its samples."""
    if not tags:
        return data
    comments = {_IN_COMMENTS[tag.name]: tag.text for tag in tags if tag.name in _IN_COMMENTS}
    chunks = [(name, content) for name, content in riff_chunks(data) if name != b"LIST"]
    chunks.append(info_chunk(read_info(data) | comments))
    if packet := xmp.packet(tags):
        chunks.append((XMP_CHUNK, packet))
    if texts := [tag for tag in tags if tag.name in _IN_ID3 or not tag.xmp]:
        chunks.append((ID3_CHUNK, _id3(texts)))
    return riff(chunks)


def read_wav_tags(data: bytes) -> dict[str, str]:
    """What a WAV file's metadata say, by the places of `wav_places`; `BadInput` if damaged."""
    found = {f"RIFF {name}": text for name, text in read_info(data).items()}
    chunks = [*riff_chunks(data)]
    found |= xmp.properties_in([content for name, content in chunks if name == XMP_CHUNK])
    for name, content in chunks:
        if name.lower() == ID3_CHUNK:
            found |= {f"ID3 TXXX {each}": text for each, text in _id3_texts(content)}
    return found


def _id3(tags: Sequence[Tag]) -> bytes:
    """An ID3 tag with a `TXXX` frame of each text, by its name."""
    frames = b""
    for tag in tags:
        value = _UTF8 + tag.name.encode() + b"\0" + tag.text.encode()
        frames += b"TXXX" + _synchsafe(len(value)) + b"\0\0" + value
    return b"ID3\4\0\0" + _synchsafe(len(frames)) + frames


def _id3_texts(data: bytes) -> Iterator[tuple[str, str]]:
    """The names and values of the `TXXX` frames in UTF-8; all others are skipped."""
    if data[:4] != b"ID3\4":
        return
    at, end, left = 10, 10 + _plain(data[6:10]), MAX_ENTRIES
    if end > len(data):
        raise BadInput("the ID3 tag of the sound is cut off")
    while at + 10 <= end:
        if (left := left - 1) < 0:
            raise BadInput(f"its ID3 tag has over {MAX_ENTRIES:,} frames")
        size = _plain(data[at + 4 : at + 8])
        value = data[at + 10 : at + 10 + size]
        if data[at : at + 4] == b"TXXX" and value[:1] == _UTF8:
            name, _, text = value[1:].partition(b"\0")
            yield name.decode("utf-8", "replace"), text.rstrip(b"\0").decode("utf-8", "replace")
        at += 10 + size


def _synchsafe(size: int) -> bytes:
    """A size in four bytes of seven bits."""
    return bytes(size >> shift & 0x7F for shift in (21, 14, 7, 0))


def _plain(data: bytes) -> int:
    return sum((byte & 0x7F) << shift for byte, shift in zip(data, (21, 14, 7, 0), strict=False))
