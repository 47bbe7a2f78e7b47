"""Addresses as providers print them, and malformed ones with a secret inside."""

import traceback

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from db.addresses import Host, parse_address, seconds, whole_number
from db.database_url import parse_url
from db.driver_errors import location
from db.errors import Refused
from worker.redis_address import parse_redis_url
from worker.store import open_store

FORMS = "use redis://host"


def parsed(text: str):
    return parse_address(text, setting="ADDRESS", schemes=("redis", "rediss"), remedy=FORMS)


def test_every_part_is_taken_apart_and_unescaped():
    address = parsed("rediss://a%40b:p%2Fw%3A%25%23@[fe80::1%25eth0]:7,r.example/%C3%BC?a=1&b=%26")
    assert (address.scheme, address.username, address.password) == ("rediss", "a@b", "p/w:%#")
    assert address.hosts == (Host("fe80::1%eth0", 7), Host("r.example"))
    assert [str(host) for host in address.hosts] == ["[fe80::1%eth0]:7", "r.example"]
    assert (address.path, address.options) == ("/ü", {"a": "1", "b": "&"})


@pytest.mark.parametrize(
    "around", ["{}\n", " {}", '"{}"', "'{}'\r\n", '\t"{} "'], ids=["line", "space", *"qsb"]
)
def test_what_files_of_settings_leave_around_a_url_is_dropped(around):
    assert parsed(around.format("redis://:word@h:1/0")) == parsed("redis://:word@h:1/0")


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("h:6379", "not a URL"),
        ("psql redis://h", "not a URL"),
        ("amqp://u:secret@h", "the scheme 'amqp'"),
        ("secret://u:secret@h", "another scheme"),
        ("redis://u:se@cret@h", "%40"),
        ("redis://u:sec/ret@h", "%2F"),
        ("redis://u:sec?ret@h", "%3F"),
        ("redis://u:sec#ret@h", "%23"),
        ("redis://u:sec ret@h", "%20"),
        ("redis://u:sec%ret@h", "begins no escape"),
        ("redis://u:sec%ffret@h", "not UTF-8"),
        ("redis://u:sec\nret@h", "must be escaped"),
        ("redis://u:sec%0Aret@h", "control character"),
        ("redis://u:secret", "port"),
        ("redis://:secret", "port"),
        ("redis://:123", "no host"),
        ("redis://h:", "port"),
        ("redis://h:65536", "port"),
        ("redis://h:0", "port"),
        ("redis://h:99999999999999", "port"),
        ("redis://[::1", "host or port"),
        ("redis://::1", "host or port"),
        ("redis://a%40secret", "no host"),
        ("redis://h?secret", "without a value"),
        ("redis://h?a=1&a=2", "twice"),
    ],
)
def test_what_cannot_be_read_for_certain_is_refused_and_not_repeated(text, says):
    with pytest.raises(Refused, match=says) as refusal:
        parsed(text)
    assert "ADDRESS" in str(refusal.value)
    assert "secret" not in str(refusal.value)


def test_options_are_converted_and_unknown_ones_refused_with_the_nearest():
    known = {"db": whole_number, "socket_timeout": seconds}
    assert parsed("redis://h?db=2&socket_timeout=1.5").convert(known) == {
        "db": 2,
        "socket_timeout": 1.5,
    }
    with pytest.raises(Refused, match=r"no option 'socket_timout' \(did you mean 'socket_timeou"):
        parsed("redis://h?socket_timout=5").convert(known)
    with pytest.raises(Refused, match="wrong value for db; use a whole number"):
        parsed("redis://h?db=-1").convert(known)


@pytest.mark.parametrize("query", ["password=ab&secret=1", "a-secret!=1", "sslpassword=a&secret=b"])
def test_a_name_that_may_be_part_of_a_password_is_not_repeated(query):
    with pytest.raises(Refused, match="not known") as refusal:
        parsed(f"redis://h?{query}").refuse_unknown({"password", "sslpassword"})
    assert "secret" not in str(refusal.value)


def test_an_address_shows_nothing():
    assert repr(parsed("redis://u:secret@h")) == "<ADDRESS>"


SECRET = "hemmelig"
PLACES = [
    ("database", "postgresql://user:{}@db.example:5432/name?sslmode=require"),
    ("database", "postgres://user:{}@db.example/name"),
    ("database", "postgresql+psycopg://:{}@[::1]:5432/name"),
    ("database", "postgresql://user:{}@a:1,b:2/name?target_session_attrs=any"),
    ("database", "postgresql://db.example/name?user=me&password={}&sslmode=require"),
    ("redis", "redis://:{}@r.example:6379/0"),
    ("redis", "rediss://user:{}@r.example:6379/0?ssl_cert_reqs=none"),
    ("redis", "unix://:{}@/run/redis.sock?db=1"),
    ("redis", "redis+socket://:{}@/run/redis.sock"),
    ("redis", "redis://r.example:6379/0?password={}&db=0"),
    ("store", "s3://key:{}@bucket/prefix?region=auto"),
    ("endpoint", "https://key:{}@s3.example:9000"),
]
SIGNS = "@#/:?&=%+,;[]{}()<>\\|^~`!*$ \t\n\r'\"\0é%4"


@st.composite
def malformed(draw) -> tuple[str, str]:
    """A setting and its address, with a password that is not escaped, and one more slip."""
    kind, form = draw(st.sampled_from(PLACES))
    pieces = draw(st.lists(st.sampled_from(SIGNS), max_size=4))
    password = SECRET + "".join(sign + SECRET for sign in pieces)
    text = form.replace("{}", password)
    at = draw(st.integers(0, len(text)))
    slip = draw(st.sampled_from(["none", "insert", "delete", "end"]))
    if slip == "insert":
        text = text[:at] + draw(st.sampled_from(SIGNS)) + text[at:]
    elif slip == "delete":
        text = text[:at] + text[at + 1 :]
    elif slip == "end":
        text += draw(st.sampled_from(["\n", " ", "'", '"', "\r\n", "\0"]))
    return kind, text


def shown(kind: str, text: str) -> str:
    """What a program that is given this address may show."""
    match kind:
        case "database":
            return location(parse_url(text))
        case "redis":
            address = parse_redis_url(text)
            return f"{address} {address!r}"
        case "store":
            return str(vars(open_store(text)))
        case _:
            return str(vars(open_store("s3://bucket", s3_endpoint_url=text)))


@settings(max_examples=1500, deadline=None)
@given(malformed())
@example(("database", f"postgresql://u:Start@{SECRET}/{SECRET}#1@127.0.0.1:1/d"))
@example(("store", f"s3://{SECRET}:{SECRET}@bucket"))
@example(("redis", f"redis://r.example:6379/0?password{SECRET}={SECRET}&db=0"))
def test_no_part_of_a_password_is_shown_however_malformed_the_address(malformed):
    says = ""
    try:
        says = shown(*malformed)
    except Refused as refusal:
        says = "".join(traceback.format_exception(refusal)) + chain(refusal)
    assert SECRET[:5] not in says


def chain(error: BaseException | None) -> str:
    """An error, its arguments and all that it came from."""
    if error is None:
        return ""
    return f"{error!r} {error.args!r} {chain(error.__cause__)} {chain(error.__context__)}"
