"""Every kind of target passes the same suite, against a real server; and what is particular."""

import asyncio
import hashlib
import json
import logging
import os
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import asyncssh
import pytest

from db.errors import MissingPackage, NotFound, Refused, Unreachable
from tests.receivers import (
    HOOK_SECRET,
    PASSWORD,
    USER,
    VARIABLES,
    Bucket,
    Hook,
    Mounted,
    SftpServer,
    WebdavServer,
    running,
)
from worker.publishing import KINDS, find_kind, open_target, webhook
from worker.publishing.access import public_files
from worker.publishing.access.secrets import SecretMissing, parse_places
from worker.publishing.base import (
    Delivery,
    Item,
    ItemRefused,
    Obstructed,
    Presence,
    TargetAway,
)

SLOW = pytest.mark.slow
RECORD = {"model": "digits:1", "index": 7, "prompt": "Grüße"}
KINDS_WITH_FILES = {"folder": Mounted, "webdav": WebdavServer, "sftp": SftpServer}


def item(data: bytes, number: int = 7) -> Item:
    digest = hashlib.sha256(data).hexdigest()
    return Item(f"0199c0de/{number:09d}.png", f"event-{number}", digest, "image/png")


@pytest.fixture(autouse=True)
def secrets(monkeypatch) -> None:
    for name, value in VARIABLES.items():
        monkeypatch.setenv(name, value)


@pytest.fixture(
    params=["folder", *(pytest.param(kind, marks=SLOW) for kind in ("webdav", "sftp", "s3"))]
)
def receiver(request, tmp_path) -> Iterator:
    if request.param == "s3":
        found = Bucket(request.getfixturevalue("s3"))
    else:
        found = KINDS_WITH_FILES[request.param](tmp_path / "root")
    with running(found):
        yield found


@pytest.fixture
def hook() -> Iterator[Hook]:
    with running(Hook()) as found:
        yield found


def opened(receiver, **more):
    target = find_kind(receiver.kind)
    places = parse_places(receiver.secrets, target.secrets)
    given = dict(pair.split("=", 1) for pair in receiver.settings)
    return open_target(receiver.kind, {**given, "address": receiver.address, **more}, places)


def test_an_item_is_put_once_given_back_listed_and_taken_down(receiver):
    data = b"\x89PNG" + bytes(range(256)) * 30
    with opened(receiver) as target:
        place = target.put(item(data), data, RECORD)
        assert target.put(item(data), data, RECORD) == place == target.locate(item(data))
        target.put(item(b"other", 8), b"other", RECORD)
        assert target.fetch(place) == data
        assert sorted(target.list()) == sorted([place, target.locate(item(b"other", 8))])
        assert receiver.digests() == sorted(
            hashlib.sha256(each).hexdigest() for each in (data, b"other")
        )
        for _ in range(2):
            target.take_down(place)
        assert list(target.list()) == [target.locate(item(b"other", 8))]
        with pytest.raises(NotFound):
            target.fetch(place)


def test_a_check_leaves_nothing_behind(receiver):
    with opened(receiver) as target:
        target.check()
        assert list(target.list()) == []
    assert receiver.digests() == []


def test_an_item_of_the_same_key_is_replaced_whole(receiver):
    with opened(receiver) as target:
        place = target.put(item(b"a long first one"), b"a long first one", RECORD)
        target.put(item(b"second"), b"second", RECORD)
        assert target.fetch(place) == b"second"


def test_what_somebody_altered_or_deleted_is_seen_and_repaired(receiver):
    data, name = b"\x89PNG" + bytes(300), "000000007.png"
    delivery = Delivery(item(data), data, RECORD)
    with opened(receiver) as target:
        assert target.compare(delivery) is Presence.MISSING
        for end, content, found in (
            (name, b"defaced", Presence.ALTERED),
            (f"{name}.json", b"{}", Presence.ALTERED),
            (f"{name}.json", None, Presence.ALTERED),
            (name, None, Presence.MISSING),
        ):
            target.put(delivery.item, data, RECORD)
            assert target.compare(delivery) is Presence.UNCHANGED
            receiver.change(end, content)
            assert target.compare(delivery) is found


def by_a_link(path, outside) -> None:
    target = outside / "of-others"
    target.write_bytes(path.read_bytes())
    path.unlink()
    path.symlink_to(target)


def by_a_pipe(path, outside) -> None:
    path.unlink()
    os.mkfifo(path)


def by_an_empty_folder(path, outside) -> None:
    path.unlink()
    path.mkdir()


def by_a_folder(path, outside) -> None:
    by_an_empty_folder(path, outside)
    (path / "of-others").write_bytes(b"kept")


def above_by_a_link(path, outside) -> None:
    path.parent.rename(outside / "moved")
    path.parent.symlink_to(outside / "moved")


def above_by_a_file(path, outside) -> None:
    path.parent.rename(outside / "moved")
    path.parent.write_bytes(b"kept")


ON_A_DISK = ["folder", "sftp"]  # a WebDAV server tells no link, and no pipe, from a file


@pytest.fixture
def placed(request, tmp_path):
    """A target of a kind with two items, the path of the first one's file, and a folder outside."""
    outside = tmp_path / "outside"
    outside.mkdir()
    with running(KINDS_WITH_FILES[request.param](tmp_path / "root")) as receiver:
        with opened(receiver) as target:
            for number in (7, 8):
                target.put(item(b"one", number), b"one", RECORD)
        [path] = [each for each in receiver.files() if each.name == "000000007.png"]
        with opened(receiver) as target:
            yield target, path, outside


ONE = Delivery(item(b"one"), b"one", RECORD)
REPLACED = [
    *((kind, by) for kind in ON_A_DISK for by in (by_a_link, by_a_pipe)),
    *((kind, by_an_empty_folder) for kind in KINDS_WITH_FILES),
]
NOT_REPLACED = [
    *((kind, above_by_a_link) for kind in ON_A_DISK),
    *((kind, by) for kind in KINDS_WITH_FILES for by in (by_a_folder, above_by_a_file)),
]


def slow_over_lines(cases: list) -> list:
    return [
        pytest.param(
            *each, marks=[] if each[0] == "folder" else SLOW, id=f"{each[0]}-{each[1].__name__}"
        )
        for each in cases
    ]


@pytest.mark.parametrize("end", ["", ".json"])
@pytest.mark.parametrize(("placed", "by"), slow_over_lines(REPLACED), indirect=["placed"])
def test_what_lies_in_the_place_of_a_file_is_replaced(placed, by, end):
    target, path, outside = placed
    path = path.with_name(f"{path.name}{end}")
    content = path.read_bytes()
    by(path, outside)
    assert target.compare(ONE) is Presence.ALTERED
    target.put(ONE.item, ONE.data, RECORD)
    assert (path.is_symlink(), path.read_bytes()) == (False, content)
    assert target.compare(ONE) is Presence.UNCHANGED
    by(path, outside)
    target.take_down(target.locate(ONE.item))
    assert not os.path.lexists(path) or path.is_dir()
    assert all(each.read_bytes() == content for each in outside.iterdir())


@pytest.mark.parametrize(("placed", "by"), slow_over_lines(NOT_REPLACED), indirect=["placed"])
def test_what_cannot_be_replaced_without_a_loss_stays_and_refuses_the_item(placed, by):
    target, path, outside = placed
    by(path, outside)
    before = {each.name for each in outside.parent.rglob("*")}
    assert target.compare(ONE) is not Presence.UNCHANGED
    with pytest.raises(Obstructed, match="not a f"):
        target.put(ONE.item, ONE.data, RECORD)
    target.take_down(target.locate(ONE.item))
    left = before - {each.name for each in outside.parent.rglob("*")}
    assert left <= {"000000007.png.json"}  # the item's own, which could be taken down


def test_a_link_in_the_place_of_unfinished_files_is_not_followed(tmp_path):
    with running(Mounted(tmp_path / "root")) as receiver, opened(receiver) as target:
        outside = tmp_path / "outside"
        outside.mkdir()
        (outside / "old").write_bytes(b"kept")
        os.utime(outside / "old", (0, 0))
        (receiver.folder / ".tmp").symlink_to(outside)
        target.finish()
        with pytest.raises(Obstructed, match="is a link, not a folder"):
            target.put(ONE.item, ONE.data, RECORD)
        assert [each.name for each in outside.iterdir()] == ["old"]


class Killed(BaseException):
    """The end of a worker, which cleans nothing up."""


UPLOADS = {  # what comes after the upload of a file, before it has its name
    "webdav": "webdav4.client.Client.move",
    "sftp": "worker.publishing.sftp._replace",
    "folder": "worker.publishing.access.public_files.durable_rename",
}


@pytest.mark.parametrize("kind", [pytest.param("webdav", marks=SLOW), "sftp", "folder"])
def test_what_a_worker_that_was_killed_left_goes_with_its_item(kind, tmp_path, monkeypatch):
    def kill(*_, **__):
        raise Killed

    with running(KINDS_WITH_FILES[kind](tmp_path / "root")) as receiver, opened(receiver) as target:
        place = target.put(item(b"one"), b"one", RECORD)
        target.put(item(b"two", 8), b"two", RECORD)
        before = set(receiver.files())
        with monkeypatch.context() as patched:
            patched.setattr(UPLOADS[kind], kill)
            patched.setattr("pathlib.Path.unlink", kill)
            for name in (place, f"{place}.json"):
                with pytest.raises(Killed):
                    target._write(name, b"half", "text/plain")
        assert {each.read_bytes() for each in set(receiver.files()) - before} == {b"half"}
        target.take_down(place)
        assert len(receiver.files()) == 2
        assert target.fetch(target.locate(item(b"two", 8))) == b"two"


def test_an_unfinished_file_is_private_and_is_removed_in_the_end(tmp_path):
    with running(Mounted(tmp_path / "root")) as receiver, opened(receiver) as target:
        target.put(item(b"one"), b"one", RECORD)
        folder = receiver.folder / ".tmp"
        assert folder.stat().st_mode & 0o777 == 0o700
        for name, age_s in (("new", 0), ("old", 4000)):
            (folder / name).write_bytes(b"half")
            os.utime(folder / name, (time.time() - age_s,) * 2)
        target.finish()
        assert [each.name for each in folder.iterdir()] == ["new"]


def test_a_folder_that_another_worker_removes_meanwhile_is_made_again(tmp_path, monkeypatch):
    """Two versions of one model are below one folder, which goes with the last file in it."""
    root, rename = tmp_path, public_files.durable_rename
    public_files.write(root, "models/digits/1/file", b"one")

    def remove_first(temporary, path):
        monkeypatch.setattr(public_files, "durable_rename", rename)
        path.parent.rmdir()  # as it was before the other worker saw that it is empty
        public_files.remove(root, "models/digits/1/file")
        rename(temporary, path)

    monkeypatch.setattr(public_files, "durable_rename", remove_first)
    public_files.write(root, "models/digits/2/file", b"two")
    assert [name for name, _ in public_files.versions(root)] == ["models/digits/2/file"]


@pytest.mark.parametrize("kind", [pytest.param("webdav", marks=SLOW), "sftp", "folder"])
def test_a_target_that_is_down_is_away_and_back_again(kind, tmp_path):
    with running(KINDS_WITH_FILES[kind](tmp_path / "root")) as receiver, opened(receiver) as target:
        place = target.put(item(b"one"), b"one", RECORD)
        receiver.stop()
        for act in (lambda: target.put(item(b"two", 8), b"two", RECORD), target.check):
            with pytest.raises(Unreachable):
                act()
        receiver.start()
        assert target.fetch(place) == b"one"
        target.put(item(b"two", 8), b"two", RECORD)


def test_the_record_lies_beside_the_item(tmp_path):
    with running(Mounted(tmp_path / "root")) as receiver, opened(receiver) as target:
        target.put(item(b"one"), b"one", RECORD)
        path = receiver.folder / "0199c0de" / "000000007.png"
        assert json.loads(path.with_name(f"{path.name}.json").read_text()) == RECORD
        assert path.stat().st_mode & 0o777 == 0o644
        assert path.parent.stat().st_mode & 0o777 == 0o755


@SLOW
def test_a_bucket_has_its_items_with_their_media_types(s3):
    receiver = Bucket(s3)
    with opened(receiver) as target:
        place = target.put(item(b"one"), b"one", RECORD)
        head = target.store.call("head_object", place)
    assert head["ContentType"] == "image/png"
    assert set(receiver.keys()) == {f"public/{place}", f"public/{place}.json"}


def test_messages_are_signed_and_repeated_under_one_id(hook):
    with opened(hook) as target:
        place = target.put(item(b"one"), b"one", RECORD)
        target.put(item(b"one"), b"one", RECORD)
        [message] = hook.messages
        assert (message.id, hook.repeated, hook.forged) == (place, 1, 0)
        assert message.body["data"]["record"] == RECORD
        assert hook.digests() == [hashlib.sha256(b"one").hexdigest()]
        target.take_down(place)
    assert hook.digests() == []


def test_a_receiver_s_answers_decide_about_the_item_or_the_target(hook):
    with opened(hook) as target:
        for status, headers, kind in (
            (422, {}, ItemRefused),
            (413, {}, ItemRefused),
            (503, {"retry-after": "7"}, TargetAway),
            (429, {}, TargetAway),
            (401, {}, TargetAway),
            (404, {}, TargetAway),
            (302, {"location": "http://127.0.0.1:1/"}, TargetAway),
        ):
            hook.answer = lambda _, status=status, headers=headers: (status, headers, b"")
            with pytest.raises(kind, match=str(status)) as raised:
                target.put(item(b"one"), b"one", RECORD)
            if status == 503:
                assert raised.value.retry_after_s == 7
        hook.answer = lambda _: (200, {}, json.dumps({"sha256": "0" * 64}).encode())
        with pytest.raises(ItemRefused, match="other bytes"):
            target.put(item(b"one"), b"one", RECORD)


def test_of_an_answer_without_an_end_the_beginning_is_read(hook, monkeypatch):
    hook.answer = lambda _: (200, {}, b" " * (4 << 20))
    read, lengths = webhook.Webhook._beginning, []

    def noted(*given):
        found = read(*given)
        lengths.append(len(found))
        return found

    monkeypatch.setattr(webhook.Webhook, "_beginning", noted)
    with opened(hook) as target:
        target.put(item(b"one"), b"one", RECORD)
    assert lengths == [webhook.MAX_ANSWER]


@pytest.mark.parametrize(
    "settings",
    [
        {"fingerprint": f"SHA256:{'A' * 43}"},
        {"known_hosts": "known_hosts"},
    ],
)
def test_nothing_is_sent_to_a_server_with_another_host_key(settings, tmp_path):
    with running(SftpServer(tmp_path / "root")) as receiver:
        known = tmp_path / "known_hosts"
        known.write_text("")
        if "known_hosts" in settings:
            settings = {"known_hosts": str(known)}
        receiver.settings = receiver.settings[:1]
        with opened(receiver, **settings) as target, pytest.raises(TargetAway, match="host key"):
            target.put(item(b"one"), b"one", RECORD)
        assert receiver.digests() == []


@pytest.mark.parametrize("kind", ["ssh-ed25519", "ecdsa-sha2-nistp256", "ssh-rsa"])
def test_any_of_a_server_s_host_keys_can_be_pinned(kind, tmp_path):
    server = SftpServer(tmp_path / "root")
    server.keys += [
        asyncssh.generate_private_key(each) for each in ("ecdsa-sha2-nistp256", "ssh-rsa")
    ]
    [pinned] = [key for key in server.keys if key.get_algorithm() == kind]
    with running(server), opened(server, fingerprint=pinned.get_fingerprint()) as target:
        assert target.fetch(target.put(item(b"one"), b"one", RECORD)) == b"one"


def test_a_folder_that_a_webdav_server_does_not_have_is_named(tmp_path):
    with running(WebdavServer(tmp_path / "root")) as receiver:
        receiver.address += "/in"
        with opened(receiver) as target:
            with pytest.raises(TargetAway, match="/in is not there"):
                target.check()
            with pytest.raises(TargetAway, match="/in is not there"):
                target.put(item(b"one"), b"one", RECORD)


def test_a_connection_that_does_not_answer_in_time_is_given_up(tmp_path, monkeypatch):
    with running(SftpServer(tmp_path / "root")) as receiver, opened(receiver) as target:
        place, session = target.put(item(b"one"), b"one", RECORD), target._session
        patient = session._settings
        session._settings = patient.model_copy(update={"timeout_s": 0.2})
        for method in (
            asyncssh.SFTPClientFile.read,
            asyncssh.SSHClientConnection.start_sftp_client,
        ):
            with monkeypatch.context() as patch:
                kind, _, name = method.__qualname__.partition(".")
                patch.setattr(getattr(asyncssh, kind), name, never)
                with pytest.raises(TargetAway, match="does not answer"):
                    target.fetch(place)
            assert (session._connection, session._opened) == (None, None)
        session._settings = patient
        assert target.fetch(place) == b"one"


async def never(*given, **named):
    await asyncio.sleep(60)


def test_a_server_in_the_file_of_known_hosts_is_trusted(tmp_path):
    with running(SftpServer(tmp_path / "root")) as receiver:
        public = receiver.key.export_public_key().decode().split()[:2]
        known = tmp_path / "known_hosts"
        known.write_text(f"[127.0.0.1]:{receiver.port} {' '.join(public)}\n")
        receiver.settings = receiver.settings[:1]
        with opened(receiver, known_hosts=str(known)) as target:
            target.check()


def test_a_wrong_password_is_told_without_it(tmp_path, monkeypatch, caplog):
    monkeypatch.setenv("TARGET_PASSWORD", "canary-that-is-wrong")
    caplog.set_level(logging.DEBUG)
    for kind in ("webdav", "sftp"):
        with (
            running(KINDS_WITH_FILES[kind](tmp_path / kind)) as receiver,
            opened(receiver) as target,
            pytest.raises(TargetAway) as raised,
        ):
            target.check()
        assert "canary" not in str(raised.value)
    assert "canary" not in "".join(
        record.getMessage() for record in caplog.records if record.levelno > logging.DEBUG
    )


class WebSite(BaseHTTPRequestHandler):
    """Answers with a page that repeats the request, by the status that the path begins with."""

    def _answer(self) -> None:
        self.rfile.read(int(self.headers["content-length"] or 0))
        told = self.headers["authorization"]
        page = f"<Error><Code>{told}</Code><Message>{told}</Message></Error>".encode()
        status = self.path.split("/")[1]
        self.send_response(int(status) if status.isdigit() else 200)
        self.send_header("location", self.path)
        self.send_header("content-length", str(len(page)))
        self.end_headers()
        self.wfile.write(b"" if self.command == "HEAD" else page)

    do_GET = do_HEAD = do_POST = do_PUT = do_DELETE = do_PROPFIND = do_MOVE = _answer  # noqa: N815 - names of http.server's

    def log_message(self, *_: object) -> None:
        """Nothing."""


@pytest.fixture
def web_site() -> Iterator[str]:
    server = ThreadingHTTPServer(("127.0.0.1", 0), WebSite)
    threading.Thread(target=server.serve_forever, args=(0.05,), daemon=True).start()
    yield f"http://127.0.0.1:{server.server_port}"
    server.shutdown()
    server.server_close()


@pytest.mark.parametrize(
    ("kind", "secret", "settings"),
    [
        ("webdav", "password", {"address": "{}/in", "user": USER}),
        ("hub", "token", {"address": "hf://ann/cats", "endpoint": "{}"}),
        ("s3", None, {"address": "s3://307/in?endpoint_url={}"}),
        ("s3", None, {"address": "s3://400/in?endpoint_url={}"}),
    ],
)
def test_a_web_site_in_the_place_of_a_server_is_a_target_that_is_away(
    web_site, monkeypatch, kind, secret, settings
):
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"):
        monkeypatch.setenv(name, "canary")
    places = {secret: "env:TARGET_PASSWORD"} if secret else {}
    given = {name: value.format(web_site) for name, value in settings.items()} | {"timeout_s": 5}
    with (
        open_target(kind, given, places) as target,
        ThreadPoolExecutor() as pool,
        pytest.raises(TargetAway) as raised,
    ):
        pool.submit(target.check).result()  # a thread has the whole depth of recursion
    assert "address" in str(raised.value)
    assert "canary" not in str(raised.value)


WRONG = {
    "webdav": [
        *("http://example.org/in", "https://ann:canary@h/", "ftp://h/", "https://h/?canary=1"),
        *("https://h/canary%2541", "https://h/canary%3Fx"),
    ],
    "webhook": ["http://10.0.0.1/in", "https://canary@h/", "canary"],
    "sftp": ["sftp://ann:canary@h/in", "ssh://h/in", "sftp:///in"],
    "s3": [
        *("s3://key:canary@bucket", "file:///tmp/x", "https://bucket"),
        "s3://bucket/p?endpoint_url=http://canary.example.org",
        "s3://bucket/p?endpoint_url=https://ann:canary@h",
    ],
    "gallery": ["s3://bucket/p?endpoint_url=http://canary.example.org"],
    "folder": ["relative/canary", "s3://bucket"],
}


@pytest.mark.parametrize(("kind", "address"), [(k, a) for k, each in WRONG.items() for a in each])
def test_an_address_that_is_wrong_is_refused_and_not_repeated(kind, address):
    with pytest.raises(Refused) as raised:
        find_kind(kind).parse({"address": address})
    assert "canary" not in str(raised.value)


def test_where_a_secret_is_must_be_said_and_the_secret_is_not_repeated(monkeypatch):
    known = {"password": "of the user"}
    for pair in ("password=canary", "canary", "password=env:", "password=file:canary", "=canary"):
        with pytest.raises(Refused) as raised:
            parse_places([pair], known)
        assert "canary" not in str(raised.value)
    with pytest.raises(Refused, match="known: password"):
        parse_places(["pasword=env:X"], known)
    monkeypatch.delenv("TARGET_PASSWORD")
    with pytest.raises(SecretMissing, match="TARGET_PASSWORD"):
        open_target(
            "webdav",
            {"address": "https://h/", "user": "ann"},
            {"password": "env:TARGET_PASSWORD"},
        )


def test_a_pipe_in_the_place_of_a_secret_is_not_waited_for(tmp_path):
    pipe = tmp_path / "secret"
    os.mkfifo(pipe)
    with pytest.raises(SecretMissing, match="it is not a file"):
        open_target("webhook", {"address": "https://h/in"}, {"secret": f"file:{pipe}"})


def test_a_secret_may_be_in_a_file(tmp_path, hook):
    path = tmp_path / "secret"
    path.write_text(f"{HOOK_SECRET}\n")
    place = {"secret": f"file:{path}"}
    with open_target("webhook", {"address": hook.address}, place) as target:
        target.put(item(b"one"), b"one", RECORD)
    path.write_text("not base64!")
    with pytest.raises(Refused) as raised, open_target("webhook", {"address": hook.address}, place):
        pass
    assert "not base64!" not in repr(raised.value.__context__)


def test_a_key_that_is_none_is_refused_before_anything_is_connected(tmp_path):
    path = tmp_path / "key"
    path.write_text("canary")
    given = {"address": "sftp://127.0.0.1:1/x", "user": "ann", "fingerprint": f"SHA256:{'A' * 43}"}
    target = open_target("sftp", given, {"key": f"file:{path}"})
    with pytest.raises(Refused, match="no private key") as raised:
        target.open()
    assert "canary" not in repr(raised.value.__context__)


def test_a_missing_package_is_named_with_its_extra(monkeypatch):
    import sys

    monkeypatch.setitem(sys.modules, "webdav4.client", None)
    target = open_target("webdav", {"address": "https://h/"}, {})
    with pytest.raises(MissingPackage, match=r"webdav4"), target:
        pass


def test_every_kind_says_what_it_is():
    assert {"folder", "s3", "sftp", "webdav", "webhook"} <= set(KINDS)
    for kind in KINDS:
        target = find_kind(kind)
        assert target.title
        assert PASSWORD not in str(target.schema.model_json_schema())
        assert all(field.description for field in target.schema.model_fields.values())
