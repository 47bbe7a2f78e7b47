"""The options of `dataset add` and `dataset update`."""

from collections.abc import Callable, Mapping, MutableMapping
from functools import reduce
from typing import TYPE_CHECKING, Any, TypeVar

import click

from scheduler.cli.lazy import DeclaredChoice
from scheduler.cli.options import Split

if TYPE_CHECKING:
    from worker.ingest.ingest import About

F = TypeVar("F", bound=Callable[..., Any])

KINDS = DeclaredChoice("worker.media:MEDIA")
MODES = DeclaredChoice("worker.media.image:MODES")

RECIPE = (
    click.option("--kind", type=KINDS, help="Default: detected from the files."),
    click.option(
        "--size", type=click.IntRange(4, 1024), metavar="N", help="Resize images to N x N."
    ),
    click.option("--mode", type=MODES, help="Convert images to grey (L) or colour (RGB)."),
    click.option(
        "--fit",
        type=click.Choice(["crop", "pad", "stretch"]),
        default="crop",
        show_default=True,
        help="Images that are not square: crop them to their centre, pad them with white, or "
        "stretch them.",
    ),
    click.option(
        "--resample/--no-resample",
        default=None,
        help="Resample sounds of another rate than most, or leave them out. Default: resample.",
    ),
    click.option(
        "--rate",
        type=click.IntRange(500, 384_000),
        metavar="HZ",
        help="Resample sounds to this rate. Default: that of most.",
    ),
    click.option(
        "--split",
        type=Split(),
        default="90,5,5",
        show_default=True,
        metavar="A,B,C",
        help="Shares of the training, validation and test splits.",
    ),
    click.option(
        "--min-size",
        type=click.FloatRange(min=0),
        metavar="N",
        help="Leave out images with a side below N pixels, sounds below N seconds, texts below N "
        "characters. Default: 4, 0.002, 1.",
    ),
    click.option(
        "--blank",
        type=click.Choice(["drop", "keep"]),
        default="drop",
        show_default=True,
        help="Images of one colour, silence, texts of white space.",
    ),
    click.option(
        "--duplicates",
        type=click.Choice(["drop", "keep"]),
        default="drop",
        show_default=True,
        help="Items equal to another of the same label.",
    ),
    click.option(
        "--near-duplicates",
        type=click.Choice(["keep", "drop", "ignore"]),
        default="keep",
        show_default=True,
        help="Items almost equal to another: keep them in one split, keep one of them, or do not "
        "look for them.",
    ),
    click.option(
        "--denoise",
        type=click.Choice(["median", "nlm", "spectral"]),
        help="Images: median filter or non-local means. Sounds: spectral gating.",
    ),
    click.option(
        "--loudness",
        metavar="LEVEL",
        help="Bring sounds to one loudness, such as -23LUFS (BS.1770) or -20dBFS (RMS).",
    ),
    click.option(
        "--clean",
        is_flag=True,
        default=None,
        help="Repair texts: mojibake, Unicode NFC, control characters, boilerplate lines.",
    ),
    click.option(
        "--mask-personal",
        is_flag=True,
        default=None,
        help="Mask e-mail addresses, phone, card and bank account numbers, and IP addresses in "
        "texts.",
    ),
)
ABOUT = (
    click.option(
        "--licence", metavar="ID", help="The licence: an SPDX id such as CC-BY-4.0, or text."
    ),
    click.option("--source", metavar="TEXT", help="Where the data come from."),
    click.option("--tag", "tags", multiple=True, metavar="KEY=VALUE", help="A note; repeatable."),
    click.option(
        "--augment",
        metavar="LIST",
        help="Augmentations for training. Images: flip,shift=2,crop=2,colour=0.2,cutout=8. "
        "Sounds: time-shift=0.05,gain=3,noise=0.005.",
    ),
)


def recipe_options(command: F) -> F:
    """How files become a version."""
    return reduce(lambda made, option: option(made), reversed(RECIPE), command)


def about_options(command: F) -> F:
    """What is said of the data."""
    return reduce(lambda made, option: option(made), reversed(ABOUT), command)


def read_about(options: MutableMapping[str, Any]) -> "About":
    """What is said of the data, taken out of the options of a command."""
    from worker.cleaning.augmentations import parse_augmentations
    from worker.ingest.ingest import About

    augment = options.pop("augment")
    return About(
        options.pop("licence"),
        options.pop("source"),
        _read_tags(options.pop("tags")),
        parse_augmentations(augment) if augment else {},
    )


def _read_tags(tags: tuple[str, ...]) -> Mapping[str, str]:
    found = {}
    for tag in tags:
        key, mark, value = tag.partition("=")
        if not mark or not key.strip():
            raise click.BadParameter(f"{tag!r} is not KEY=VALUE", param_hint="--tag")
        found[key.strip()] = value.strip()
    return found
