"""A bucket: each item is an object below `items/`, with its record beside it as `KEY.json`."""

from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from typing import ClassVar

from db.errors import NotFound, Refused, Unreachable
from worker.publishing.access.addresses import ADDRESS, endpoint
from worker.publishing.access.item_files import ItemFiles
from worker.publishing.base import Item, TargetAway, TargetSettings
from worker.store.address import SETTING, S3Address, parse_store_url
from worker.store.s3 import Credentials, S3Store

FOLDER = "items"


class Bucket(ItemFiles[TargetSettings]):
    """Objects in a bucket of any server that speaks S3.

    Without secrets, the credentials are those that boto finds, as for the object store.
    """

    title: ClassVar[str] = "a bucket of AWS or another server that speaks S3"
    schema: ClassVar[type[TargetSettings]] = TargetSettings
    secrets: ClassVar[Mapping[str, str]] = {
        "access_key": "the id of the access key",
        "secret_key": "the secret access key",
    }

    def __init__(self, settings: TargetSettings, secrets: Mapping[str, str]) -> None:
        super().__init__(settings, secrets)
        if len(secrets) == 1:
            raise Refused(
                "one of access_key and secret_key is missing", remedy="give both, or neither"
            )
        keys = Credentials(secrets["access_key"], secrets["secret_key"]) if secrets else None
        address = self.place(settings.address)
        self.store = S3Store(address, keys, timeout_s=settings.timeout_s)

    @classmethod
    def place(cls, address: str) -> S3Address:
        """See `Target.place`."""
        try:
            found = parse_store_url(address)
        except Refused as error:
            raise Refused(
                error.message.replace(SETTING, ADDRESS), remedy="use s3://bucket/prefix"
            ) from None
        if not isinstance(found, S3Address):
            raise Refused(f"{ADDRESS} is no bucket", remedy="use s3://bucket/prefix")
        if found.endpoint_url:
            endpoint(found.endpoint_url, f"endpoint_url in {ADDRESS}")
        return found

    def __str__(self) -> str:
        return str(self.store)

    def check(self) -> None:
        """See `Target.check`; tries all that the server will be asked for."""
        with _errors():
            self.store.check()

    def locate(self, item: Item) -> str:
        """See `Target.locate`: the object's key below the prefix."""
        return f"{FOLDER}/{item.key}"

    def _write(self, name: str, data: bytes, media_type: str) -> None:
        with _errors():
            self.store.call("put_object", name, Body=data, ContentType=media_type)

    def _read(self, name: str) -> bytes:
        with _errors(), self.store.open(name) as file:
            return file.read()

    def _remove(self, name: str) -> None:
        with _errors():
            self.store.delete(name)

    def _names(self) -> Iterable[str]:
        with _errors():
            return list(self.store.listed(FOLDER))


@contextmanager
def _errors() -> Iterator[None]:
    """The store's errors, without its settings in their remedies."""
    try:
        yield
    except NotFound:
        raise
    except Unreachable as error:
        raise TargetAway(
            error.message,
            remedy="check the target's address, and that its credentials may read, write and list",
        ) from error


TARGET = Bucket
