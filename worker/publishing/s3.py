"""A bucket: each item is an object below `items/`, with its record beside it as `KEY.json`."""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import ClassVar

from db.errors import NotFound, Refused, Unreachable
from worker.publishing.access.addresses import ADDRESS, endpoint
from worker.publishing.base import Item, Record, Target, TargetAway, TargetSettings, record_json
from worker.store.address import SETTING, S3Address, parse_store_url
from worker.store.s3 import Credentials, S3Store

FOLDER = "items"
RECORD_SUFFIX = ".json"


class Bucket(Target[TargetSettings]):
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
        self.store = S3Store(self.place(settings.address), keys)

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
        """See `Target.check`."""
        with _errors():
            self.store.check()

    def locate(self, item: Item) -> str:
        """See `Target.locate`: the object's key below the prefix."""
        return f"{FOLDER}/{item.key}"

    def put(self, item: Item, data: bytes, record: Record) -> str:
        """See `Target.put`; the record comes first, so that no object is without one."""
        key = self.locate(item)
        self._put(f"{key}{RECORD_SUFFIX}", record_json(record), "application/json")
        self._put(key, data, item.media_type)
        return key

    def fetch(self, remote_id: str) -> bytes:
        """See `Target.fetch`."""
        with _errors(), self.store.open(remote_id) as file:
            return file.read()

    def list(self) -> Iterator[str]:
        """See `Target.list`."""
        with _errors():
            keys = set(self.store.listed(FOLDER))
        yield from (key for key in sorted(keys) if f"{key}{RECORD_SUFFIX}" in keys)

    def take_down(self, remote_id: str) -> None:
        """See `Target.take_down`; the object goes first, for the reason in `put`."""
        with _errors():
            self.store.delete(remote_id)
            self.store.delete(f"{remote_id}{RECORD_SUFFIX}")

    def _put(self, key: str, data: bytes, media_type: str) -> None:
        with _errors():
            self.store.call("put_object", key, Body=data, ContentType=media_type)


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
