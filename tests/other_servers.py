"""Servers as people have them: behind a pooler, with TLS, of other makes.

Their programs come from Debian, npm and PyPI; a test that needs one that is not installed is
skipped, and says which.
"""

import datetime
import ipaddress
import os
import shutil
import subprocess
import sysconfig
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from sqlalchemy import URL, make_url

from tests.servers import IS_ROOT, PASSWORD, free_port, is_open, serve_postgresql, wait_until

AS_NOBODY = {"user": "nobody", "group": "nogroup", "extra_groups": []} if IS_ROOT else {}


@dataclass(frozen=True)
class Certificate:
    """A certificate for this machine that signs itself, and its key: paths of PEM files."""

    certificate: Path
    key: Path


def find_program(name: str, *folders: str) -> str:
    """The path of a program; the test is skipped if it is not installed."""
    scripts = sysconfig.get_path("scripts")
    path = os.pathsep.join([scripts, os.environ.get("PATH", ""), "/usr/sbin", *folders])
    found = shutil.which(name, path=path)
    if found is None:
        pytest.skip(f"{name} is not installed")
    return found


def make_certificate(folder: Path) -> Certificate:
    """A certificate for `localhost` and 127.0.0.1, which clients may trust as its own authority."""
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "localhost")])
    hosts = [x509.DNSName("localhost"), x509.IPAddress(ipaddress.ip_address("127.0.0.1"))]
    now = datetime.datetime.now(datetime.UTC)
    certificate = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - datetime.timedelta(days=1))
        .not_valid_after(now + datetime.timedelta(days=1))
        .add_extension(x509.SubjectAlternativeName(hosts), critical=False)
        .add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
        .sign(key, hashes.SHA256())
    )
    made = Certificate(folder / "server.crt", folder / "server.key")
    made.certificate.write_bytes(certificate.public_bytes(serialization.Encoding.PEM))
    made.key.write_bytes(
        key.private_bytes(
            serialization.Encoding.PEM,
            serialization.PrivateFormat.PKCS8,
            serialization.NoEncryption(),
        )
    )
    made.key.chmod(0o600)
    return made


@contextmanager
def run_postgresql_with_tls() -> Iterator[str]:
    """A PostgreSQL server with TLS; the URL checks its certificate and the channel."""
    commands = max(Path("/usr/lib/postgresql").glob("*/bin"), default=None)  # the newest, Debian's
    if commands is None:
        pytest.skip("postgresql is not installed")
    home = _readable_folder("genmill-pg-tls-")
    made = make_certificate(home)
    for file in (made.certificate, made.key):
        if IS_ROOT:
            shutil.chown(file, "nobody")
    settings = ["ssl=on", f"ssl_cert_file={made.certificate}", f"ssl_key_file={made.key}"]
    try:
        for url in serve_postgresql(commands, home, settings=settings):
            query = {"sslmode": "verify-full", "sslrootcert": str(made.certificate)}
            yield _text(make_url(url).update_query_dict({**query, "channel_binding": "require"}))
    finally:
        shutil.rmtree(home, ignore_errors=True)


@contextmanager
def run_pgbouncer(server: URL, *, servers: int = 2) -> Iterator[str]:
    """A pooler in transaction mode before a server; yields the URL of the same database."""
    program, port = find_program("pgbouncer"), free_port()
    home = _readable_folder("genmill-pooler-")
    target = f"host={server.host} port={server.port} user={server.username}"
    (home / "pgbouncer.ini").write_text(
        f"[databases]\n{server.database} = {target} password={server.password}\n"
        f"[pgbouncer]\nlisten_addr = 127.0.0.1\nlisten_port = {port}\nunix_socket_dir =\n"
        f"auth_type = any\npool_mode = transaction\ndefault_pool_size = {servers}\n"
    )
    try:
        # root is refused
        with _running(program, home / "pgbouncer.ini", home=home, port=port, **AS_NOBODY):
            yield _text(server.set(port=port))
    finally:
        shutil.rmtree(home, ignore_errors=True)


@contextmanager
def run_redis_with_tls() -> Iterator[str]:
    """A Redis server with TLS and an ACL user who may do what the documentation says."""
    program, port = find_program("redis-server"), free_port()
    with tempfile.TemporaryDirectory(prefix="genmill-redis-") as folder:
        home = Path(folder)
        made = make_certificate(home)
        (home / "redis.conf").write_text(
            f"port 0\ntls-port {port}\nbind 127.0.0.1\ntls-auth-clients no\nsave ''\n"
            f"tls-cert-file {made.certificate}\ntls-key-file {made.key}\ndir {home}\n"
            f"user default off\nuser mill on >{PASSWORD}@#/ ~genmill:* +@all -@dangerous +info\n"
        )
        with _running(program, home / "redis.conf", home=home, port=port):
            password = f"{PASSWORD}%40%23%2F"
            yield f"rediss://mill:{password}@localhost:{port}/2?ssl_ca_certs={made.certificate}"


@contextmanager
def run_s3rver(certificate: Certificate | None = None) -> Iterator[str]:
    """The S3 server s3rver with the bucket `genmill`; takes the credentials S3RVER, S3RVER."""
    program, port = find_program("s3rver"), free_port()
    with tempfile.TemporaryDirectory(prefix="genmill-s3rver-") as folder:
        words = ["-d", folder, "-a", "127.0.0.1", "-p", port, "--configure-bucket", "genmill", "-s"]
        if certificate is not None:
            words += ["--key", certificate.key, "--cert", certificate.certificate]
        with _running(program, *words, home=Path(folder), port=port):
            yield f"{'http' if certificate is None else 'https'}://127.0.0.1:{port}"


@contextmanager
def run_rclone() -> Iterator[str]:
    """The S3 server of rclone with the bucket `genmill`; takes the credentials S3RVER, S3RVER."""
    program, port = find_program("rclone"), free_port()
    words = [program, "serve", "--help"]
    serves = subprocess.run(words, capture_output=True, text=True, check=True).stdout
    if "serve s3" not in serves and " s3 " not in serves:
        pytest.skip("this rclone has no `serve s3`: it came with 1.65")
    with tempfile.TemporaryDirectory(prefix="genmill-rclone-") as folder:
        (Path(folder) / "genmill").mkdir()
        words = ["serve", "s3", folder, "--addr", f"127.0.0.1:{port}"]
        with _running(program, *words, "--auth-key", "S3RVER,S3RVER", home=Path(folder), port=port):
            yield f"http://127.0.0.1:{port}"


def _readable_folder(prefix: str) -> Path:
    """A folder that another user can read."""
    home = Path(tempfile.mkdtemp(prefix=prefix))
    home.chmod(0o755)
    return home


@contextmanager
def _running(program: str, *words: object, home: Path, port: int, **how: object) -> Iterator[None]:
    with (home / "log").open("wb") as log:
        command = [program, *map(str, words)]
        process = subprocess.Popen(command, stdout=log, stderr=log, cwd="/", **how)
    try:
        wait_until(lambda: is_open(port), program)
        yield
    finally:
        process.terminate()
        process.wait(timeout=30)


def _text(url: URL) -> str:
    return url.render_as_string(hide_password=False)
