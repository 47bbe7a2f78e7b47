"""A gallery: static pages in a folder or a bucket, with filters, an Atom feed and JSON-LD.

It needs neither a server of ours nor a script; `worker.publishing.pages` makes the pages. The
remote id of an item is the name of its page.
"""

import re
from collections.abc import Collection, Iterable, Iterator, Mapping
from contextlib import contextmanager
from datetime import UTC, datetime
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

from pydantic import Field, field_validator
from pydantic_core import PydanticCustomError

from db.errors import BadInput, NotFound, Refused, Unreachable
from worker.extras import needed_for
from worker.keys.bundle import bundle
from worker.keys.keyring import Keyring
from worker.marks import find_mark
from worker.marks.base import PRESENT
from worker.media import medium_of
from worker.media.base import Medium
from worker.publishing import s3
from worker.publishing.access import addresses, public_files
from worker.publishing.access.public_store import PublicStore
from worker.publishing.base import (
    Delivery,
    Item,
    ItemRefused,
    Presence,
    Record,
    Target,
    TargetAway,
    TargetSettings,
)
from worker.publishing.pages import entry as pages
from worker.store.address import S3Address
from worker.store.s3 import S3Store

if TYPE_CHECKING:
    from worker.publishing.pages.site import Site

FORMS = "use /path, file:///path or s3://bucket/prefix"
_PAGE = re.compile(r"items/([A-Za-z0-9-]+)\.html")
_KEY = re.compile(r"[A-Za-z0-9][A-Za-z0-9-]{0,200}")


class GallerySettings(TargetSettings):
    """What can be set of a gallery."""

    title: str = Field("Gallery", min_length=1, max_length=200, description="its heading")
    about: str = Field("", max_length=2000, description="a line below the heading")
    author: str = Field("Genmill", min_length=1, max_length=200, description="of the feed")
    url: str = Field(
        "",
        max_length=1000,
        description="where it will be served; without one, the feed's links are relative",
    )
    licence: str = Field(
        "",
        max_length=1000,
        description="the licence of what is shown, as words or a URL; default: what each says",
    )

    @field_validator("url")
    @classmethod
    def _is_of_the_web(cls, value: str) -> str:
        if value and not re.fullmatch(r"https?://[^\s\"'<>]+", value):
            raise PydanticCustomError("url", "use a URL such as https://example.org/gallery/")
        return value


class Gallery(Target[GallerySettings]):
    """Static pages in a folder, or in a bucket from which they are served."""

    title: ClassVar[str] = "a gallery of static pages, in a folder or a bucket"
    schema: ClassVar[type[GallerySettings]] = GallerySettings
    secrets: ClassVar[Mapping[str, str]] = s3.Bucket.secrets
    lists_all: ClassVar[bool] = True
    shows_keys: ClassVar[bool] = True

    def __init__(self, settings: GallerySettings, secrets: Mapping[str, str]) -> None:
        super().__init__(settings, secrets)
        self._signers = set[str]()  # ids of the keys that signed what it was asked about

    @classmethod
    def place(cls, address: str) -> Path | S3Address:
        """See `Target.place`."""
        if address.startswith("s3:"):
            return s3.Bucket.place(address)
        try:
            return addresses.folder(address)
        except Refused as error:
            raise Refused(error.message, remedy=FORMS) from None

    @classmethod
    def parse(cls, settings: Mapping[str, Any]) -> GallerySettings:
        """See `Target.parse`; its URL is told to everybody."""
        if url := settings.get("url"):
            addresses.server(str(url), "http", "https", called="the gallery's url")
        return super().parse(settings)

    @cached_property
    def store(self) -> PublicStore | S3Store:
        """The folder or bucket."""
        place = self.place(self.settings.address)
        if isinstance(place, Path):
            return PublicStore(place)
        of_bucket = self.settings.model_dump(include={"address", "timeout_s"})
        return s3.Bucket(TargetSettings(**of_bucket), self._secrets).store

    @cached_property
    def site(self) -> "Site":
        """The pages. Raises `MissingPackage`."""
        with needed_for("a gallery"):
            from worker.publishing.pages.render import Look  # noqa: PLC0415 - Jinja2 is an extra
            from worker.publishing.pages.site import Site  # noqa: PLC0415 - as above

        given = self.settings
        url = f"{given.url.rstrip('/')}/" if given.url else ""
        look = Look(given.title, url=url, author=given.author, about=given.about)
        return Site(self.store, look)

    def __str__(self) -> str:
        return str(self.store)

    def check(self) -> None:
        """See `Target.check`."""
        with self._errors():
            self.store.check()

    def open(self) -> None:
        """See `Target.open`."""
        _ = self.site

    def locate(self, item: Item) -> str:
        """See `Target.locate`."""
        return pages.page_of(_key(item))

    def put(self, item: Item, data: bytes, record: Record) -> str:
        """See `Target.put`; `finish` lists it. Raises `ItemRefused` for what is no sample."""
        with self._errors(), _shown(item):
            shown = self._item(item, data, record)
            self._certify({shown.signed_by} - self._signers)
            self._signers.add(shown.signed_by)
            return self.site.put(shown)

    def compare(self, delivery: Delivery) -> Presence:
        """See `Target.compare`."""
        with self._errors(), _shown(delivery.item):
            shown = self._item(delivery.item, delivery.data, delivery.record)
            self._signers.add(shown.signed_by)
            return self.site.compare(shown)

    def _item(self, item: Item, data: bytes, record: Record) -> pages.Item:
        """An item as the pages show it, published now."""
        if item.job is None:
            raise ItemRefused(
                f"{item.key} is a file of a model, and a gallery shows samples",
                remedy="publish models to a target of another kind, such as hub",
            )
        medium = medium_of(data)
        says = _statement(data, medium)
        name = "" if self.settings.licence else says.get("Licence", "")
        return pages.Item(
            key=_key(item),
            job=item.job,
            data=data,
            record=record,
            medium=medium,
            sha256=item.sha256,
            published_at=datetime.now(UTC),
            marks=item.marks or "",
            dataset=item.dataset or "",
            signed_by=self._signer(data, medium),
            licence=self.settings.licence or says.get("LicenceUrl") or name,
            licence_name=name,
            statement={name: says[name] for name in ("Copyright", "Creator") if name in says},
        )

    def _signer(self, data: bytes, medium: Medium) -> str:
        """The id of the key of ours that signed a sample; empty if none did."""
        reading = find_mark("c2pa").read(data, self.keys, medium)
        return str(reading.says.get("key") or "") if reading.state == PRESENT else ""

    def _certify(self, key_ids: Iterable[str]) -> None:
        """Write a trust bundle for each of these keys: one for all would tell of other tenants."""
        for each in self.keys.keys:
            if each.id in key_ids:
                self.site.certify(each.id, bundle(Keyring((each,))))

    def fetch(self, remote_id: str) -> bytes:
        """See `Target.fetch`: the sample's own file."""
        with self._errors():
            return self.site.fetch(_key_of(remote_id))

    def list(self) -> Iterator[str]:
        """See `Target.list`."""
        with self._errors():
            yield from map(pages.page_of, sorted(self.site.keys()))

    def take_down(self, remote_id: str) -> None:
        """See `Target.take_down`."""
        with self._errors():
            self.site.take_down(_key_of(remote_id))

    def finish(self, changed: Collection[str] = ()) -> None:
        """See `Target.finish`. Trust bundles are written anew: a key may be revoked by now."""
        with self._errors():
            self._certify(self._signers | self.site.certified())
            self.site.refresh()
        if isinstance(self.store, PublicStore):
            public_files.sweep(self.store.root)

    @contextmanager
    def _errors(self) -> Iterator[None]:
        """The store's errors, without its settings in their remedies."""
        if isinstance(self.store, PublicStore):
            public_files.require_folder(self.store.root)
        try:
            yield
        except (NotFound, TargetAway):
            raise
        except Unreachable as error:
            raise TargetAway(
                error.message, remedy="check the target's address, and who may write there"
            ) from error


@contextmanager
def _shown(item: Item) -> Iterator[None]:
    """Raise `ItemRefused` in place of the errors of an item that cannot be shown."""
    try:
        yield
    except BadInput as error:
        raise ItemRefused(f"{item.key} cannot be shown: {error}") from error


def _statement(data: bytes, medium: Medium) -> dict[str, str]:
    """What a sample itself says of its copyright and licence."""
    says = find_mark("licence").read(data, Keyring(()), medium).says
    return {name: str(text) for name, text in says.items() if isinstance(text, str)}


def _key(item: Item) -> str:
    """The item's name in the place: its key without the suffix, on one level."""
    key = item.key.rpartition(".")[0].replace("/", "-")
    if not _KEY.fullmatch(key):
        raise ItemRefused(f"{item.key} cannot be shown: its key is not of letters and digits")
    return key


def _key_of(remote_id: str) -> str:
    found = _PAGE.fullmatch(remote_id)
    if found is None:
        raise NotFound(f"{remote_id!r} is not the page of an item")
    return found[1]


TARGET = Gallery
