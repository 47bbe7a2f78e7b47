"""Endpoints of S3 as providers print them: with the bucket in front or behind, with a region."""

import pytest

from worker.store.address import parse_store_url


@pytest.mark.parametrize(
    ("printed", "endpoint", "region"),
    [
        ("https://s3.eu-west-1.amazonaws.com", None, "eu-west-1"),
        (
            "https://media.s3.eu-west-1.amazonaws.com",
            "https://s3.eu-west-1.amazonaws.com",
            "eu-west-1",
        ),
        ("https://s3.dualstack.us-gov-west-1.amazonaws.com/", None, "us-gov-west-1"),
        ("https://s3-us-west-2.amazonaws.com", None, "us-west-2"),
        ("https://s3.us-west-004.backblazeb2.com", None, "us-west-004"),
        ("https://s3.amazonaws.com", None, None),
        ("https://media.nyc3.digitaloceanspaces.com", "https://nyc3.digitaloceanspaces.com", None),
        (
            "https://0a.r2.cloudflarestorage.com/media",
            "https://0a.r2.cloudflarestorage.com",
            None,
        ),
        ("https://media.s3.fr-par.scw.cloud", "https://s3.fr-par.scw.cloud", None),
        # servers of one's own, which may bear the bucket's name
        ("http://media.example.com:9000", None, None),
        ("https://example.com/media", None, None),
        ("https://s3.my-company.com", None, None),
        ("http://127.0.0.1:9000", None, None),
        ("http://[::1]:9000", None, None),
    ],
)
def test_an_endpoint_is_read_as_its_provider_prints_it(printed, endpoint, region):
    for address in (
        parse_store_url("s3://media/runs", s3_endpoint_url=printed),
        parse_store_url(f"s3://media/runs?endpoint_url={printed}"),
    ):
        assert (address.bucket, address.prefix) == ("media", "runs")
        assert address.endpoint_url == (endpoint or printed.rstrip("/"))
        assert address.region == region


def test_a_region_that_is_given_counts():
    url = "s3://media?region=auto&endpoint_url=https://s3.eu-west-1.amazonaws.com"
    assert parse_store_url(url).region == "auto"
