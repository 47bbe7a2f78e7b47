"""A Redis URL means the same to redis-py and to Celery, which read URLs each in its own way."""

from pathlib import Path
from urllib.parse import quote

import pytest
import redis
from kombu import Connection as KombuConnection
from kombu.transport.redis import Channel

from db.errors import Refused
from worker.broker.app import celery_app
from worker.redis_address import parse_redis_url
from worker.settings import Settings

PASSWORD = "p@ss/w:rd+?#% é;&="
QUOTED = quote(PASSWORD, safe="")
DEFAULTS = {"host": "localhost", "port": 6379, "db": 0, "username": None, "password": None}
TLS = {"ssl_cert_reqs": "required"}

URLS = [
    ("redis://", {}),
    ("redis://r", {"host": "r"}),
    ("redis://r:7/", {"host": "r", "port": 7}),
    ("redis://r:7/3", {"host": "r", "port": 7, "db": 3}),
    ("redis://r?db=3", {"host": "r", "db": 3}),
    ("redis://r/3?db=3", {"host": "r", "db": 3}),
    ("redis://r?virtual_host=4", {"host": "r", "db": 4}),
    ("valkey://r/2", {"host": "r", "db": 2}),
    ("REDIS://r/2", {"host": "r", "db": 2}),
    ("redis://[::1]:7/1", {"host": "::1", "port": 7, "db": 1}),
    (f"redis://:{QUOTED}@r/1", {"host": "r", "password": PASSWORD, "db": 1}),
    (f"redis://mill:{QUOTED}@r", {"host": "r", "username": "mill", "password": PASSWORD}),
    (
        f"redis://r?username=mill&password={QUOTED}",
        {"host": "r", "username": "mill", "password": PASSWORD},
    ),
    ("redis://default:a:b@r", {"host": "r", "username": "default", "password": "a:b"}),
    ("rediss://r:7", {"host": "r", "port": 7, **TLS}),
    ("valkeys://r", {"host": "r", **TLS}),
    ("rediss://r?ssl_cert_reqs=none", {"host": "r", "ssl_cert_reqs": "none"}),
    ("rediss://r?ssl_cert_reqs=CERT_NONE", {"host": "r", "ssl_cert_reqs": "none"}),
    ("rediss://r?ssl_cert_reqs=CERT_OPTIONAL", {"host": "r", "ssl_cert_reqs": "optional"}),
    (
        "rediss://r?ssl_ca_certs=a%20b/ca.pem&ssl_certfile=c&ssl_keyfile=k&ssl_check_hostname=no",
        {
            "host": "r",
            **TLS,
            "ssl_ca_certs": "a b/ca.pem",
            "ssl_certfile": "c",
            "ssl_keyfile": "k",
            "ssl_check_hostname": False,
        },
    ),
    (
        "redis://r?socket_timeout=5&socket_connect_timeout=1.5&health_check_interval=9"
        "&socket_keepalive=false",
        {
            "host": "r",
            "socket_timeout": 5.0,
            "socket_connect_timeout": 1.5,
            "health_check_interval": 9,
            "socket_keepalive": False,
        },
    ),
]
SOCKETS = [
    ("unix:///run/r.sock", {"path": "/run/r.sock"}),
    ("redis+socket:///run/r.sock?virtual_host=2", {"path": "/run/r.sock", "db": 2}),
    (
        f"unix://mill:{QUOTED}@/run/a%20b%25.sock?db=1",
        {"path": "/run/a b%.sock", "username": "mill", "password": PASSWORD, "db": 1},
    ),
    ("unix:///run/r.sock?socket_timeout=5", {"path": "/run/r.sock", "socket_timeout": 5.0}),
]


@pytest.fixture(autouse=True)
def certificates(tmp_path, monkeypatch):
    """The files that some URLs name, in the working folder."""
    monkeypatch.chdir(tmp_path)
    Path("a b").mkdir()
    for name in ("a b/ca.pem", "c", "k"):
        Path(name).touch()


def of_redis(url: str) -> dict:
    return redis.ConnectionPool.from_url(parse_redis_url(url).client_url).connection_kwargs


def of_celery(url: str) -> dict:
    """What the channel of Celery's transport connects with."""
    app = celery_app(Settings(_env_file=None, redis_url=url))
    connection: KombuConnection = app.connection_for_write()
    channel = Channel.__new__(Channel)
    channel.connection = connection.transport
    for name, value in connection.transport_options.items():
        setattr(channel, name, value)
    return channel._connparams()


@pytest.mark.parametrize(("url", "means"), URLS, ids=range(len(URLS)))
@pytest.mark.parametrize("reader", [of_redis, of_celery])
def test_a_url_means_the_same_to_both(reader, url, means):
    found = reader(url)
    expected = DEFAULTS | means
    assert {name: found.get(name, DEFAULTS.get(name)) for name in expected} == expected
    encrypted = issubclass(found.get("connection_class", redis.Connection), redis.SSLConnection)
    assert reader is of_redis or encrypted == ("ssl_cert_reqs" in means)


@pytest.mark.parametrize(("url", "means"), SOCKETS, ids=range(len(SOCKETS)))
@pytest.mark.parametrize("reader", [of_redis, of_celery])
def test_a_socket_means_the_same_to_both(reader, url, means):
    found = reader(url)
    expected = {"db": 0, "username": None, "password": None} | means
    assert {name: found.get(name) for name in expected} == expected


@pytest.mark.parametrize(
    ("url", "says"),
    [
        ("redis://r?foo=bar", "no option 'foo'"),
        ("redis://r?sll_cert_reqs=none", r"did you mean 'ssl_cert_reqs'"),
        ("rediss://r?ssl_cert_reqs=never", "ssl_cert_reqs; use none, optional or required"),
        ("redis://r?ssl_ca_certs=c", "ssl_ca_certs without TLS; write rediss://"),
        ("redis://r?socket_timeout=soon", "socket_timeout; use a number of seconds"),
        ("redis://r?socket_timeout=0", "socket_timeout; use a number of seconds above 0"),
        ("redis://r?socket_keepalive=2", "socket_keepalive; use true or false"),
        ("redis://r/zero", "a database that is no number"),
        ("redis://r/1/2", "a database that is no number"),
        ("redis://r/1?db=2", "two databases"),
        ("redis://a:1,b:2", "several servers"),
        ("redis://%2Frun%2Fr.sock", "a socket as its host"),
        ("unix://host/run/r.sock", "names no socket"),
        ("unix://", "names no socket"),
        ("sentinel://r", "the scheme 'sentinel'"),
    ],
)
def test_what_cannot_be_meant_is_refused_by_name(url, says):
    with pytest.raises(Refused, match=f"GENMILL_REDIS_URL .*{says}"):
        parse_redis_url(url)


def test_an_address_shows_where_it_is_and_no_more():
    shown = {
        url: str(parse_redis_url(url))
        for url in (f"redis://u:{QUOTED}@r/1", "redis://[::1]:7", f"unix://:{QUOTED}@/run/r.sock")
    }
    assert list(shown.values()) == ["r:6379", "[::1]:7", "/run/r.sock"]
    assert not any(word in repr(parse_redis_url(url)) for url in shown for word in ("p@ss", "'u'"))
