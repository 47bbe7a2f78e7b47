"""How a page shows a sample, whatever its medium, and small pictures that say what they are."""

from dataclasses import dataclass
from io import BytesIO

from PIL import Image

from worker.media.samples.png_tags import tag_png
from worker.media.samples.record import AI_GENERATED
from worker.media.samples.tags import Tag

LARGEST = 480  # pixels of the longer side of a picture on a page
_SOURCE = Tag("DigitalSourceType", AI_GENERATED, "Iptc4xmpExt:DigitalSourceType")


@dataclass(frozen=True)
class Exhibit:
    """A sample as a picture, a sound and a text, or as some of these."""

    picture: bytes = b""  # a PNG file of at most `LARGEST` pixels a side: the sample, or a copy
    size: tuple[int, int] = (0, 0)  # of the picture: width, height
    is_sketch: bool = False  # the picture is drawn from the sample, which is something else
    sound: bytes = b""  # a WAV file: the sample itself, or a rendition of it
    text: str = ""


def draw(image: Image.Image) -> tuple[bytes, tuple[int, int]]:
    """A picture as a PNG file, made smaller if it is large, and its size.

    The file says that its content is AI-generated, as the sample that it stands for does.
    """
    if max(image.size) > LARGEST:
        image.thumbnail((LARGEST, LARGEST), Image.Resampling.LANCZOS)
    file = BytesIO()
    image.save(file, "PNG", optimize=True)
    return tag_png(file.getvalue(), [_SOURCE]), image.size
