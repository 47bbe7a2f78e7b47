"""The proxy does to connections what it says."""

import socket
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager

import pytest

from tests.chaos.proxy import Proxy


@contextmanager
def run_echo() -> Iterator[int]:
    """The port of a server that sends back what it gets."""
    listener = socket.create_server(("127.0.0.1", 0))

    def answer(client: socket.socket) -> None:
        with client:
            try:
                while data := client.recv(65536):
                    client.sendall(data)
            except OSError:
                pass

    def serve() -> None:
        while True:
            try:
                client, _ = listener.accept()
            except OSError:
                return
            threading.Thread(target=answer, args=(client,), daemon=True).start()

    threading.Thread(target=serve, daemon=True).start()
    yield listener.getsockname()[1]
    listener.close()


@pytest.fixture
def echo() -> Iterator[int]:
    with run_echo() as port:
        yield port


@pytest.fixture
def other_echo() -> Iterator[int]:
    with run_echo() as port:
        yield port


@pytest.fixture
def proxy(echo) -> Iterator[Proxy]:
    made = Proxy("127.0.0.1", echo)
    made.start()
    yield made
    made.stop()


def connect(proxy: Proxy) -> socket.socket:
    return socket.create_connection(("127.0.0.1", proxy.port), timeout=5)


def say(client: socket.socket, words: bytes) -> bytes:
    client.sendall(words)
    return client.recv(65536)


def keep_talking(proxy: Proxy, words: bytes) -> None:
    with connect(proxy) as client:
        for _ in range(100):
            say(client, words)
            time.sleep(0.01)


def test_bytes_pass_in_both_directions(proxy) -> None:
    with connect(proxy) as one, connect(proxy) as other:
        assert (say(one, b"a"), say(other, b"b")) == (b"a", b"b")
    assert proxy.passed == 2


def test_a_delay_holds_up_what_passes(proxy) -> None:
    proxy.delay_s = 0.1
    with connect(proxy) as client:
        began = time.monotonic()
        assert say(client, b"a") == b"a"
        assert time.monotonic() - began >= 0.2


def test_a_reset_reaches_whoever_is_connected(proxy) -> None:
    with connect(proxy) as client:
        say(client, b"a")
        assert proxy.reset() == 1
        with pytest.raises(ConnectionResetError):
            client.recv(1)


def test_connections_may_be_led_to_another_server(proxy, other_echo) -> None:
    with connect(proxy) as client:
        say(client, b"a")
        assert proxy.lead_to(other_echo) == 1
        with pytest.raises(ConnectionResetError):
            client.recv(1)
    with connect(proxy) as client:
        assert say(client, b"b") == b"b"


def test_a_half_open_connection_is_silent_and_goes_on_later(proxy) -> None:
    with connect(proxy) as client:
        proxy.half_open = True
        client.sendall(b"a")
        client.settimeout(0.2)
        with pytest.raises(TimeoutError):
            client.recv(1)
        proxy.half_open = False
        client.settimeout(5)
        assert client.recv(1) == b"a"


def test_new_connections_can_be_refused(proxy) -> None:
    proxy.refusing = True
    with pytest.raises(OSError, match=r"reset|pipe"):
        keep_talking(proxy, b"a")


def test_a_reply_is_cut_after_so_many_bytes(proxy) -> None:
    proxy.cut_after = 3
    with pytest.raises(ConnectionResetError):
        keep_talking(proxy, b"abcdef")
    assert proxy.passed == 0


def test_a_request_is_carried_out_and_its_reply_lost_once(proxy) -> None:
    proxy.lost_reply_to = b"COMMIT"
    with connect(proxy) as client, pytest.raises(ConnectionResetError):
        say(client, b"COMMIT")
    assert proxy.losses == 1
    with connect(proxy) as client:
        assert say(client, b"COMMIT") == b"COMMIT"


def test_a_server_that_is_away_resets(echo) -> None:
    proxy = Proxy("127.0.0.1", 1)
    proxy.start()
    try:
        with pytest.raises(OSError, match=r"reset|pipe"):
            keep_talking(proxy, b"a")
    finally:
        proxy.stop()
