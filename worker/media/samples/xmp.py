"""XMP packets: the metadata of pictures and sounds that other people's readers look for.

Source: ISO 16684-1, XMP specification part 1; the namespaces' own pages.
"""

from collections.abc import Iterator, Sequence
from functools import lru_cache
from types import MappingProxyType
from xml.etree import ElementTree as ET
from xml.sax.saxutils import escape

from db.errors import BadInput
from worker.media.samples.tags import Tag

NAMESPACES = MappingProxyType(
    {
        "dc": "http://purl.org/dc/elements/1.1/",
        "xmpRights": "http://ns.adobe.com/xap/1.0/rights/",
        "Iptc4xmpExt": "http://iptc.org/std/Iptc4xmpExt/2008-02-29/",
        "TC260": "http://www.tc260.org.cn/ns/AIGC/1.0/",
    }
)
MAX_BYTES = 1 << 20  # of a packet that is read
_PREFIXES = {uri: prefix for prefix, uri in NAMESPACES.items()}
_RDF = "http://www.w3.org/1999/02/22-rdf-syntax-ns#"
_LANGUAGES = {"dc:rights", "xmpRights:UsageTerms"}  # texts that may be in several languages
_LISTS = {"dc:creator"}
_BEFORE = (
    '<?xpacket begin="\ufeff" id="W5M0MpCehiHzreSzNTczkc9d"?>'
    '<x:xmpmeta xmlns:x="adobe:ns:meta/">'
    f'<rdf:RDF xmlns:rdf="{_RDF}"><rdf:Description rdf:about=""'
)
_AFTER = '</rdf:Description></rdf:RDF></x:xmpmeta><?xpacket end="r"?>'


def packet(tags: Sequence[Tag]) -> bytes:
    """The packet of those tags that have an XMP property; empty if none has."""
    told = [tag for tag in tags if tag.xmp]
    if not told:
        return b""
    used = sorted({tag.xmp.partition(":")[0] for tag in told})
    names = "".join(f' xmlns:{prefix}="{NAMESPACES[prefix]}"' for prefix in used)
    return f"{_BEFORE}{names}>{''.join(map(_property, told))}{_AFTER}".encode()


def _property(tag: Tag) -> str:
    text = escape(tag.text)
    if tag.xmp in _LANGUAGES:
        text = f'<rdf:Alt><rdf:li xml:lang="x-default">{text}</rdf:li></rdf:Alt>'
    elif tag.xmp in _LISTS:
        text = f"<rdf:Seq><rdf:li>{text}</rdf:li></rdf:Seq>"
    return f"<{tag.xmp}>{text}</{tag.xmp}>"


@lru_cache(maxsize=256)  # most samples of a job have the same
def properties(data: bytes) -> MappingProxyType[str, str]:
    """The properties of known namespaces in a packet, as in `dc:rights`; of a list, the first.

    Raises `BadInput` if it cannot be parsed.
    """
    if len(data) > MAX_BYTES or b"<!" in data:  # a document type could name entities without end
        raise BadInput("its XMP packet is too large, or no plain XML")
    try:
        root = ET.fromstring(data.strip(b"\0 \r\n\t"))  # noqa: S314 - without document types
    except (ET.ParseError, ValueError, LookupError) as error:
        raise BadInput(f"its XMP packet is damaged: {error}") from None
    return MappingProxyType(dict(_found(root)))


def properties_in(packets: Sequence[bytes]) -> dict[str, str]:
    """The properties of a file's packets, of which it may have one, by `XMP dc:rights`."""
    if len(packets) > 1:
        raise BadInput(f"it has {len(packets):,} XMP packets")
    return {f"XMP {name}": text for each in packets for name, text in properties(each).items()}


def _found(root: ET.Element) -> Iterator[tuple[str, str]]:
    for about in root.iter(f"{{{_RDF}}}Description"):
        for name, text in about.items():
            if short := _short(name):
                yield short, text
        for child in about:
            if short := _short(child.tag):
                first = child.find(f".//{{{_RDF}}}li")
                yield short, (child if first is None else first).text or ""


def _short(name: str) -> str:
    """`dc:rights` of `{http://purl.org/dc/elements/1.1/}rights`; empty for other namespaces."""
    uri, _, local = name.removeprefix("{").partition("}")
    return f"{_PREFIXES[uri]}:{local}" if uri in _PREFIXES else ""
