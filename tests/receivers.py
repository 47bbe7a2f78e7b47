"""Servers that things are published to, on loopback and by other people's libraries.

Each can be stopped and started again at the same port, and tells what it holds.
"""

import asyncio
import base64
import hashlib
import json
import re
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import asyncssh
from standardwebhooks import Webhook, WebhookVerificationError

from tests.faulty_s3 import FaultyS3
from tests.servers import free_port

USER, PASSWORD = "ann", "canary-of-the-target"
HOOK_SECRET = "whsec_" + base64.b64encode(b"canary-of-the-webhook").decode()
VARIABLES = {"TARGET_PASSWORD": PASSWORD, "TARGET_HOOK": HOOK_SECRET}


class Receiver:
    """A server that items are published to."""

    kind: str
    address: str
    settings: tuple[str, ...] = ()
    secrets: tuple[str, ...] = ()

    def start(self) -> None:
        """Begin to answer."""

    def stop(self) -> None:
        """Answer no more; what it holds stays."""

    def contents(self) -> list[bytes]:
        """Each item that it holds, without records."""
        raise NotImplementedError

    def digests(self) -> list[str]:
        """The SHA-256 of each item."""
        return sorted(hashlib.sha256(each).hexdigest() for each in self.contents())

    def change(self, end: str, data: bytes | None) -> None:
        """Change the file whose name has this end, as somebody might; None: delete it."""
        raise NotImplementedError


class InFolder(Receiver):
    """Anything that keeps files in a folder."""

    kind = "folder"

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        folder.mkdir()
        self.address = str(folder)

    def files(self) -> list[Path]:
        return [each for each in self.folder.rglob("*") if each.is_file()]

    def contents(self) -> list[bytes]:
        names = {str(path) for path in self.files()}
        return [path.read_bytes() for path in self.files() if f"{path}.json" in names]

    def change(self, end: str, data: bytes | None) -> None:
        [path] = [each for each in self.files() if each.as_posix().endswith(end)]
        path.unlink() if data is None else path.write_bytes(data)


class Mounted(InFolder):
    """A folder that is not there while it is stopped."""

    def stop(self) -> None:
        self.folder.rename(self.folder.with_name("unmounted"))

    def start(self) -> None:
        away = self.folder.with_name("unmounted")
        if away.exists():
            away.rename(self.folder)


class GalleryFolder(Mounted):
    """A gallery's folder: each item has a page, which the feed names, and a file."""

    kind = "gallery"

    def contents(self) -> list[bytes]:
        listed = (self.folder / "feed.xml").read_text("utf-8")
        pages = sorted(self.folder.glob("items/*.html"))
        assert all(page.name in listed for page in pages)
        files = [next(self.folder.glob(f"files/{page.stem}.*")) for page in pages]
        assert len(files) == len([*self.folder.glob("files/*")])
        return [path.read_bytes() for path in files]


class WebdavServer(InFolder):
    """WsgiDAV, with a user and a password."""

    kind = "webdav"
    settings = (f"user={USER}",)
    secrets = ("password=env:TARGET_PASSWORD",)

    def __init__(self, folder: Path) -> None:
        super().__init__(folder)
        self.port = free_port()
        self.address = f"http://127.0.0.1:{self.port}"
        self._server: Any = None

    def start(self) -> None:
        from cheroot import wsgi
        from wsgidav.wsgidav_app import WsgiDAVApp

        config = {
            "host": "127.0.0.1",
            "port": self.port,
            "provider_mapping": {"/": str(self.folder)},
            "simple_dc": {"user_mapping": {"*": {USER: {"password": PASSWORD}}}},
            "http_authenticator": {"accept_basic": True, "accept_digest": False},
            "lock_storage": None,
            "verbose": 0,
            "logging": {"enable": False},
        }
        self._server = wsgi.Server(("127.0.0.1", self.port), WsgiDAVApp(config))
        self._server.shutdown_timeout = 0
        self._server.prepare()
        threading.Thread(target=self._server.serve, daemon=True).start()

    def stop(self) -> None:
        if self._server is not None:
            self._server.stop()
            self._server = None


class SftpServer(InFolder):
    """The server of asyncssh, with a user and a password, and its files in a folder."""

    kind = "sftp"
    secrets = ("password=env:TARGET_PASSWORD",)

    def __init__(self, folder: Path) -> None:
        super().__init__(folder)
        self.port, self.key = free_port(), asyncssh.generate_private_key("ssh-ed25519")
        self.keys = [self.key]
        self.address = f"sftp://127.0.0.1:{self.port}/in"
        self.settings = (f"user={USER}", f"fingerprint={self.key.get_fingerprint()}")
        self._loop: asyncio.AbstractEventLoop | None = None

    def start(self) -> None:
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, daemon=True)
        self._thread.start()
        self._acceptor = self._run(self._listen())

    def stop(self) -> None:
        if self._loop is not None:
            self._run(self._close())
            self._loop.call_soon_threadsafe(self._loop.stop)
            self._thread.join()
            self._loop.close()
            self._loop = None

    def _run(self, work: Any) -> Any:
        assert self._loop is not None
        return asyncio.run_coroutine_threadsafe(work, self._loop).result(30)

    async def _listen(self) -> Any:
        root = str(self.folder)
        self._connections: list[Any] = []
        kept = self._connections

        class Login(asyncssh.SSHServer):
            def connection_made(self, connection: Any) -> None:
                kept.append(connection)

            def begin_auth(self, username: str) -> bool:
                return True

            def password_auth_supported(self) -> bool:
                return True

            def validate_password(self, username: str, password: str) -> bool:
                return (username, password) == (USER, PASSWORD)

        return await asyncssh.listen(
            "127.0.0.1",
            self.port,
            server_factory=Login,
            server_host_keys=self.keys,
            sftp_factory=lambda channel: asyncssh.SFTPServer(channel, chroot=root),
        )

    async def _close(self) -> None:
        self._acceptor.close()
        for each in self._connections:
            each.abort()
        await self._acceptor.wait_closed()
        await asyncio.sleep(0)


class Bucket(Receiver):
    """A bucket of moto's server; while it is stopped, that is too busy to answer anything."""

    kind = "s3"

    def __init__(self, s3: Any, front: FaultyS3 | None = None) -> None:
        self._s3, self._front = s3, front
        endpoint_url = front.url if front else s3.endpoint_url
        self.address = f"s3://{s3.bucket}/public?endpoint_url={endpoint_url}"

    def stop(self) -> None:
        if self._front:
            self._front.always["*"] = 503

    def start(self) -> None:
        if self._front:
            self._front.always.clear()

    def keys(self) -> dict[str, bytes]:
        import boto3

        client = boto3.client("s3", endpoint_url=self._s3.endpoint_url)
        listed = client.list_objects_v2(Bucket=self._s3.bucket, Prefix="public/")
        names = [each["Key"] for each in listed.get("Contents", [])]
        found = {
            name: client.get_object(Bucket=self._s3.bucket, Key=name)["Body"].read()
            for name in names
        }
        client.close()
        return found

    def contents(self) -> list[bytes]:
        found = self.keys()
        return [data for name, data in found.items() if f"{name}.json" in found]

    def change(self, end: str, data: bytes | None) -> None:
        import boto3

        [key] = [each for each in self.keys() if each.endswith(end)]
        client = boto3.client("s3", endpoint_url=self._s3.endpoint_url)
        if data is None:
            client.delete_object(Bucket=self._s3.bucket, Key=key)
        else:
            client.put_object(Bucket=self._s3.bucket, Key=key, Body=data)
        client.close()


class GalleryBucket(Bucket):
    """The same in a bucket."""

    kind = "gallery"

    def contents(self) -> list[bytes]:
        found = {name.removeprefix("public/"): data for name, data in self.keys().items()}
        pages = [each for each in found if re.fullmatch(r"items/[^/]*\.html", each)]
        listed = found["feed.xml"].decode()
        assert all(page in listed for page in pages)
        keys = [page.removeprefix("items/").removesuffix(".html") for page in pages]
        files = {Path(each).stem: data for each, data in found.items() if each[:6] == "files/"}
        assert sorted(files) == sorted(keys)
        return [*files.values()]


@dataclass
class Message:
    id: str
    body: dict[str, Any]


@dataclass
class Hook(Receiver):
    """A receiver of webhooks, which verifies them by the library and drops ids that it has seen."""

    kind = "webhook"
    secrets = ("secret=env:TARGET_HOOK",)
    port: int = field(default_factory=free_port)
    messages: list[Message] = field(default_factory=list)  # each id once
    repeated: int = 0
    forged: int = 0
    answer: Callable[[Message], tuple[int, dict[str, str], bytes]] = lambda _: (204, {}, b"")
    _server: Any = None

    @property
    def address(self) -> str:  # type: ignore[override]
        return f"http://127.0.0.1:{self.port}/in"

    def start(self) -> None:
        hook = self

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                body = self.rfile.read(int(self.headers["content-length"]))
                status, headers, answer = hook.take(dict(self.headers), body)
                self.send_response(status)
                for name, value in headers.items():
                    self.send_header(name, value)
                self.end_headers()
                self.wfile.write(answer)

            def log_message(self, *_: object) -> None:
                """Nothing."""

        self._server = ThreadingHTTPServer(("127.0.0.1", self.port), Handler)
        threading.Thread(target=self._server.serve_forever, args=(0.05,), daemon=True).start()

    def take(self, headers: dict[str, str], body: bytes) -> tuple[int, dict[str, str], bytes]:
        try:
            data = Webhook(HOOK_SECRET).verify(body, headers)
        except WebhookVerificationError:
            self.forged += 1
            return 401, {}, b""
        named = {name.lower(): value for name, value in headers.items()}
        message = Message(named["webhook-id"], data)
        status, more, answer = self.answer(message)
        if status < 300:
            if any(each.id == message.id for each in self.messages):
                self.repeated += 1
            else:
                self.messages.append(message)
        return status, more, answer

    def stop(self) -> None:
        if self._server is not None:
            self._server.shutdown()
            self._server.server_close()
            self._server = None

    def contents(self) -> list[bytes]:
        gone = {each.body["data"]["id"] for each in self.of_type("item.taken_down")}
        items = [each for each in self.of_type("item.published") if each.id not in gone]
        return [base64.b64decode(each.body["data"]["content"]) for each in items]

    def of_type(self, kind: str) -> list[Message]:
        return [each for each in self.messages if each.body["type"] == kind]


@dataclass
class HubServer(Receiver):
    """As much of the Hugging Face hub as its own library uses to push files and list them."""

    kind = "hub"
    secrets = ("token=env:TARGET_PASSWORD",)
    port: int = field(default_factory=free_port)
    files: dict[str, bytes] = field(default_factory=dict)
    commits: list[str] = field(default_factory=list)
    refused: int = 0
    before: Callable[[str], object] = lambda _: None  # is called with the path of each request
    silent: bool = False  # it takes requests and answers none
    _before: dict[str, dict[str, bytes]] = field(default_factory=dict)  # of each earlier commit
    _server: Any = None
    repository = "datasets/ann/cats"

    @property
    def address(self) -> str:  # type: ignore[override]
        return f"hf://{self.repository}"

    @property
    def settings(self) -> tuple[str, ...]:  # type: ignore[override]
        return (f"endpoint=http://127.0.0.1:{self.port}",)

    def start(self) -> None:
        hub = self

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                self._answer(self.rfile.read(int(self.headers["content-length"] or 0)))

            def do_GET(self) -> None:
                self._answer(b"")

            def _answer(self, body: bytes) -> None:
                found: object = None
                if self.headers.get("authorization") != f"Bearer {PASSWORD}":
                    hub.refused += 1
                else:
                    path = self.path.partition("?")[0]
                    hub.before(path)
                    while hub.silent:
                        time.sleep(0.02)
                    found = hub.take(path, body)
                status = found if isinstance(found, int) else 404 if found is None else 200
                told = {} if found is None or isinstance(found, int) else found
                data = told if isinstance(told, bytes) else json.dumps(told).encode()
                self.send_response(status)
                self.send_header("content-length", str(len(data)))
                self.send_header("content-type", "application/json")
                self.end_headers()
                self.wfile.write(data)

            def log_message(self, *_: object) -> None:
                """Nothing."""

        self._server = ThreadingHTTPServer(("127.0.0.1", self.port), Handler)
        threading.Thread(target=self._server.serve_forever, args=(0.05,), daemon=True).start()

    def take(self, path: str, body: bytes) -> object:
        kind = "" if self.repository.startswith("datasets/") else "models/"
        api = f"/api/{kind}{self.repository}"
        url = f"http://127.0.0.1:{self.port}/{self.repository}"
        if path == "/api/repos/create":
            return {"url": url}
        if path == "/api/validate-yaml":
            return {"errors": [], "warnings": []}
        if path == f"{api}/preupload/main":
            names = [each["path"] for each in json.loads(body)["files"]]
            fixed = {"uploadMode": "regular", "shouldIgnore": False}
            known = {name: blob_id(data) for name, data in self.files.items()}
            return {"files": [{"path": name, **fixed, "oid": known.get(name)} for name in names]}
        if path == f"{api}/commit/main":
            if not self.commit([json.loads(line) for line in body.splitlines()]):
                return 412
            oid = self.head
            return {"commitUrl": f"{url}/commit/{oid}", "commitOid": oid, "success": True}
        if path.startswith(f"{api}/tree/"):
            files = self._before.get(path.rpartition("/")[2], self.files)
            return [
                {"type": "file", "path": name, "size": len(data), "oid": blob_id(data)}
                for name, data in files.items()
            ]
        if path.startswith(f"/{self.repository}/resolve/main/"):
            return self.files.get(path.partition("/resolve/main/")[2])
        return {"id": self.repository, "sha": self.head} if path.startswith(api) else None

    @property
    def head(self) -> str:
        return f"{len(self.commits):040x}"

    def commit(self, lines: list[dict[str, Any]]) -> bool:
        """Whether a commit was made: not if its parent is another than the latest."""
        for line in lines:
            value = line["value"]
            if line["key"] == "header":
                if value.get("parentCommit", self.head) != self.head:
                    return False
                self._before[self.head] = dict(self.files)
                self.commits.append(value["summary"])
            elif line["key"] == "file":
                self.files[value["path"]] = base64.b64decode(value["content"])
            elif line["key"] == "deletedFile":
                del self.files[value["path"]]
        return True

    def stop(self) -> None:
        if self._server is not None:
            self._server.shutdown()
            self._server.server_close()
            self._server = None

    def contents(self) -> list[bytes]:
        names = [each[8:-5] for each in self.files if each.startswith("records/")]
        found = ((name, name.partition("/")[2].split("/", 2)[-1]) for name in names)
        return [self.files[name if name in self.files else short] for name, short in found]

    def change(self, end: str, data: bytes | None) -> None:
        [name] = [each for each in self.files if each.endswith(end)]
        self._before[self.head] = dict(self.files)
        self.commits.append(f"change {name}")
        self.files.pop(name) if data is None else self.files.update({name: data})


def blob_id(data: bytes) -> str:
    """By what git knows the content of a file."""
    return hashlib.sha1(b"blob %d\0" % len(data) + data).hexdigest()


@contextmanager
def running(receiver: Receiver) -> Iterator[Receiver]:
    receiver.start()
    try:
        yield receiver
    finally:
        receiver.stop()


def record_of(path: Path) -> dict[str, Any]:
    found: dict[str, Any] = json.loads(path.with_name(f"{path.name}.json").read_text())
    return found
