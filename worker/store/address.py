"""Where the object store is: `file:///folder`, or `s3://bucket/prefix` with options."""

import re
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import unquote

from db.addresses import Address, one_of, parse_address, readable_file, unquoted
from db.errors import Refused
from worker.store.base import KEYS, is_key

SETTING, ENDPOINT = "GENMILL_STORE_URL", "GENMILL_S3_ENDPOINT_URL"
FORMS = "use file:///folder or s3://bucket/prefix"
CREDENTIALS = "leave them out, and set AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY"

# an endpoint that holds no bucket, and the region in AWS's form that requests must be signed for
_SERVICE = re.compile(
    r"^s3[.-]|\.(digitaloceanspaces|linodeobjects|vultrobjects|your-objectstorage"
    r"|cloudflarestorage|aliyuncs|myqcloud)\.com(/|$)"
)
_REGION_IN = re.compile(r"[/.]s3[.-](?:dualstack\.)?([a-z]{2,4}(?:-[a-z]+)+-\d+)\.")
_FOLDER = re.compile(r"file://(/(?!.*%00)[^?#\0]*[^/?#\0][^?#\0]*)", re.DOTALL)
_REGION = re.compile(r"[A-Za-z0-9-]{1,63}")


@dataclass(frozen=True)
class S3Address:
    """A bucket, the prefix of the keys in it, and how to speak to its server."""

    bucket: str
    prefix: str = ""
    endpoint_url: str | None = None  # None: AWS, or what its own variables name
    region: str | None = None
    addressing_style: str | None = None  # path or virtual
    ca_bundle: str | None = None  # file of the certificates to trust, in place of the usual ones

    def __str__(self) -> str:
        return f"s3://{self.bucket}" + (f" at {self.endpoint_url}" if self.endpoint_url else "")


def parse_store_url(text: str, *, s3_endpoint_url: str | None = None) -> Path | S3Address:
    """The folder or bucket that a URL names. Raises `Refused`, repeating no part of the URL."""
    text = unquoted(text)
    if folder := _FOLDER.fullmatch(text):
        return Path(unquote(folder[1]))
    if text.startswith("file:"):
        raise Refused(f"{SETTING} names no folder", remedy=f"{FORMS}; write ? as %3F, # as %23")
    address = parse_address(text, setting=SETTING, schemes=("s3",), remedy=FORMS)
    _refuse_credentials(address)
    options = address.convert(_OPTIONS)
    if len(address.hosts) != 1 or not address.hosts[0].name or address.hosts[0].port:
        address.refuse("names no bucket", FORMS)
    if s3_endpoint_url:
        options.setdefault("endpoint_url", _endpoint(s3_endpoint_url, ENDPOINT))
    if endpoint := options.get("endpoint_url"):
        options["endpoint_url"] = _without_bucket(endpoint, address.hosts[0].name)
        if region := _REGION_IN.search(endpoint):
            options.setdefault("region", region[1])
    prefix = address.path.strip("/")
    if prefix and not is_key(prefix):
        address.refuse("has a prefix that no key can begin with", f"use {KEYS}")
    return S3Address(address.hosts[0].name, prefix, **options)


def _endpoint(text: str, setting: str) -> str:
    forms = "use one such as https://host:9000"
    address = parse_address(text, setting=setting, schemes=("http", "https"), remedy=forms)
    _refuse_credentials(address)
    address.refuse_unknown(())
    if len(address.hosts) != 1 or not address.hosts[0].name:
        address.refuse("names no server", forms)
    return f"{address.scheme}://{address.hosts[0]}{address.path.rstrip('/')}"


def _without_bucket(endpoint: str, bucket: str) -> str:
    """An endpoint without the bucket, which some providers print in it.

    A server of one's own may bear the bucket's name, so that is left out only before `s3` and the
    names of providers.
    """
    scheme, _, rest = endpoint.partition("://")
    service = rest.removeprefix(f"{bucket}.").removesuffix(f"/{bucket}")
    return f"{scheme}://{service}" if _SERVICE.search(service) else endpoint


def _refuse_credentials(address: Address) -> None:
    if address.username is not None or address.password is not None:
        address.refuse("has credentials, which are not read there", CREDENTIALS)


def _region(text: str) -> str:
    if not _REGION.fullmatch(text):
        raise ValueError("a name such as eu-central-1")
    return text


_OPTIONS: dict[str, Callable[[str], str]] = {
    "endpoint_url": lambda text: _endpoint(text, f"endpoint_url in {SETTING}"),
    "region": _region,
    "addressing_style": one_of("path", "virtual"),
    "ca_bundle": readable_file,
}
