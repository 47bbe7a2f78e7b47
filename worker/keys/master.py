"""The installation key: it wraps every other secret, and is itself in a file or behind a command.

`wrap` encrypts with AES-256-GCM and binds the result to its `context`, so that one wrapped secret
cannot stand in another's place. What is wrapped says which key opens it: another one is refused
with `WrongKey`, and what was changed with `DamagedSecret`.
"""

import hashlib
import os
import secrets
import shlex
import shutil
import stat
import subprocess
import threading
from abc import ABC, abstractmethod
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, ClassVar

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

from db.errors import DamagedSecret, Refused, Unreachable, WrongKey
from db.path_errors import is_missing, read_whole, reading, shown
from db.sharing import GROUP_TOO, OWNER_ONLY, file_mode, folder_mode, is_shared
from worker.files import CHUNK, disk_errors

if TYPE_CHECKING:
    from worker.settings import Settings

KEY_BYTES, NONCE_BYTES, NAME_BYTES = 32, 12, 8
MAX_KEY_FILE = 4096  # bytes: digits, and white space
MAX_WRAPPED = (64 << 10) - 1  # bytes of a data key as a command wraps it
COMMAND_S = 60.0
LENGTH_BYTES = 2


class Master(ABC):
    """Wraps and unwraps secrets. Use from threads is safe."""

    mark: ClassVar[bytes]  # what everything begins with that this kind has wrapped

    @abstractmethod
    def wrap(self, data: bytes, context: str) -> bytes:
        """`data`, encrypted; only `unwrap` with an equal `context` gives it back."""

    @abstractmethod
    def unwrap(self, wrapped: bytes, context: str) -> bytes:
        """The inverse of `wrap`. Raises `WrongKey`."""


def open_master(settings: "Settings") -> Master:
    """The installation key of these settings. It is read, or its command run, when it is used."""
    if settings.key_command is not None:
        return CommandMaster(settings.key_command)
    return FileMaster(settings.master_key, home=None if settings.key_file else settings.home)


class FileMaster(Master):
    """The key is a file of 64 hexadecimal digits, for its owner alone or a group that shares it."""

    mark = b"gmf1"

    def __init__(self, path: Path, *, home: Path | None = None) -> None:
        """With `home`, the file is made when something is wrapped for the first time."""
        self.path, self._home = path, home

    def wrap(self, data: bytes, context: str) -> bytes:
        """See `Master.wrap`."""
        if self._home is not None and is_missing(self.path):
            make_key_file(self.path, self._home)
        key = self._read()
        return self.mark + key_name(key) + seal(key, data, context)

    def unwrap(self, wrapped: bytes, context: str) -> bytes:
        """See `Master.unwrap`."""
        name, sealed = _taken_apart(self, wrapped, context)
        key = self._read()
        if key_name(key) != name:
            raise WrongKey(
                f"the installation key in {shown(self.path)} is not the one that wrapped {context}",
                remedy="set GENMILL_KEY_FILE to the file that was in use then; if the keys were "
                "wrapped anew since, restart with the new GENMILL_KEY_FILE",
            )
        return unseal(key, sealed, context)

    def _read(self) -> bytes:
        """The key. It is read each time, so that it does not stay in memory."""
        if is_missing(self.path):
            raise WrongKey(
                f"the installation key is missing: there is no {shown(self.path)}",
                remedy="bring the file back from your copy of it, or set GENMILL_KEY_FILE or "
                "GENMILL_KEY_COMMAND as on the other machines; without it, nothing that it wrapped "
                "can be read",
            )
        with reading(self.path):
            self._refuse_readable_by_others()
        text = read_whole(self.path, "an installation key", limit_bytes=MAX_KEY_FILE)
        try:
            key = bytes.fromhex(text.decode("ascii"))
        except ValueError:  # do not show what it is
            key = b""
        if len(key) != KEY_BYTES:
            raise Refused(
                f"{shown(self.path)} is no installation key: it is not 64 hexadecimal digits",
                remedy="`openssl rand -hex 32` makes one; keep the one that was in use",
            )
        return key

    def _refuse_readable_by_others(self) -> None:
        """Its group may use it where it shares the home, or else the folder of the file."""
        mode = self.path.stat().st_mode
        group_too = is_shared(self._home or self.path.parent)
        others = mode & (GROUP_TOO if group_too else OWNER_ONLY)
        if stat.S_ISREG(mode) and others:
            who = "every user of this machine" if others & GROUP_TOO else "every user of its group"
            raise Refused(
                f"{shown(self.path)} can be used by {who}",
                remedy=f"chmod {'o' if group_too else 'go'}-rwx {shlex.quote(shown(self.path))}",
            )


_QUOTED = "give a program and its arguments, quoted as in a shell"


class CommandMaster(Master):
    """A command of the user's wraps one data key a process; the data key wraps everything else.

    So a KMS sees nothing but data keys, and is asked once, not for each secret.
    """

    mark = b"gmc1"

    def __init__(self, command: str, *, given_as: str = "GENMILL_KEY_COMMAND") -> None:
        """`given_as` is what errors call the setting or option that has the command."""
        self._given_as = given_as
        try:
            self._words = shlex.split(command)
        except ValueError as error:
            raise Refused(f"{given_as} cannot be taken apart: {error}", remedy=_QUOTED) from None
        if not self._words:
            raise Refused(f"{given_as} holds no command", remedy=_QUOTED)
        self._made: tuple[bytes, bytes] | None = None  # a data key, and as it is wrapped
        self._opened: dict[bytes, bytes] = {}

    def wrap(self, data: bytes, context: str) -> bytes:
        """See `Master.wrap`."""
        if self._made is None:
            self._made = self._make()
        key, wrapped_key = self._made
        length = len(wrapped_key).to_bytes(LENGTH_BYTES, "big")
        return self.mark + key_name(key) + length + wrapped_key + seal(key, data, context)

    def unwrap(self, wrapped: bytes, context: str) -> bytes:
        """See `Master.unwrap`."""
        name, rest = _taken_apart(self, wrapped, context)
        length, rest = int.from_bytes(rest[:LENGTH_BYTES], "big"), rest[LENGTH_BYTES:]
        wrapped_key, sealed = rest[:length], rest[length:]
        key = self._opened.get(wrapped_key) or self._run("unwrap", wrapped_key)
        if len(key) != KEY_BYTES or key_name(key) != name:
            raise WrongKey(
                f"the command of {self._given_as} did not give back the key that wrapped {context}",
                remedy="let it use the key that it used then",
            )
        self._opened[wrapped_key] = key
        return unseal(key, sealed, context)

    def _make(self) -> tuple[bytes, bytes]:
        """A fresh data key; what cannot be unwrapped again, or is not wrapped at all, is refused.

        A command that passes its input on would leave all secrets readable.
        """
        key = secrets.token_bytes(KEY_BYTES)
        wrapped = self._run("wrap", key)
        if key in wrapped or not 0 < len(wrapped) <= MAX_WRAPPED:
            raise Refused(
                f"the command of {self._given_as} does not wrap: it wrote {len(wrapped)} bytes, "
                + ("the key itself among them" if key in wrapped else f"not 1 to {MAX_WRAPPED:,}"),
                remedy="let `COMMAND wrap` encrypt what it reads on stdin",
            )
        if self._run("unwrap", wrapped) != key:
            raise Refused(
                f"the command of {self._given_as} does not unwrap what it has wrapped",
                remedy="let `COMMAND unwrap` give back what `COMMAND wrap` read",
            )
        return key, wrapped

    def _run(self, what: str, data: bytes) -> bytes:
        """What the command writes. Nothing that it says is shown: it might be the secret.

        Nor are its arguments, which may hold a password.
        """
        command = f"{shlex.quote(self._words[0])} ... {what}"
        remedy = "run it by hand to see what it says"
        try:
            written = _output([*self._words, what], data)
        except subprocess.CalledProcessError as error:
            raise Unreachable(
                f"`{command}` failed with {error.returncode}", remedy=remedy
            ) from None
        except subprocess.TimeoutExpired:
            raise Unreachable(
                f"`{command}` has not ended after {COMMAND_S:.0f} s", remedy=remedy
            ) from None
        except OSError as error:
            program = self._words[0]
            # of a PATH with a folder that may not be read, the system would say "Permission denied"
            is_unknown = "/" not in program and shutil.which(program) is None
            why = "there is no such program" if is_unknown else error.strerror
            raise Refused(
                f"`{command}` cannot be run: {why}", remedy=f"correct {self._given_as}"
            ) from None
        if len(written) > MAX_WRAPPED:
            raise Refused(f"`{command}` writes more than {MAX_WRAPPED:,} bytes", remedy=remedy)
        return written


def _output(command: Sequence[str], data: bytes) -> bytes:
    """What a command writes that gets `data`. Of one that writes too much, no more is read."""
    ours, theirs = os.pipe()
    found = bytearray()

    def receive() -> None:
        with os.fdopen(ours, "rb", buffering=0) as pipe:
            while len(found) <= MAX_WRAPPED and (some := pipe.read(CHUNK)):
                found.extend(some)

    receiving = threading.Thread(target=receive, daemon=True)
    receiving.start()
    try:
        done = subprocess.run(  # noqa: S603 - the user's own command, from the settings
            command,
            input=data,
            stdout=theirs,
            stderr=subprocess.DEVNULL,
            timeout=COMMAND_S,
            check=False,
        )
    finally:
        os.close(theirs)
    receiving.join(COMMAND_S)
    if receiving.is_alive():  # it left a process behind that holds the pipe
        raise subprocess.TimeoutExpired(command, COMMAND_S)
    if len(found) <= MAX_WRAPPED:
        done.check_returncode()
    return bytes(found)


def make_key_file(path: Path, home: Path) -> None:
    """Make a fresh key, unless another process is quicker. A home that a group shares is its too.

    The file is complete and on the disk before it has its name, and a file that is there stays.
    """
    temporary = path.with_name(f".new-{secrets.token_hex(8)}")
    with disk_errors(path.parent):
        path.parent.mkdir(mode=folder_mode(home), parents=True, exist_ok=True)
        try:
            handle = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL, file_mode(home))
            with os.fdopen(handle, "w") as file:
                file.write(f"{secrets.token_hex(KEY_BYTES)}\n")
                file.flush()
                os.fsync(file.fileno())
            if not is_shared(home):
                temporary.chmod(0o400)
            try:
                path.hardlink_to(temporary)
            except FileExistsError:
                return
            folder = os.open(path.parent, os.O_RDONLY)
            os.fsync(folder)
            os.close(folder)
        finally:
            temporary.unlink(missing_ok=True)


def key_name(key: bytes) -> bytes:
    """What tells keys apart and says nothing of them: they are random."""
    return hashlib.sha256(b"genmill installation key" + key).digest()[:NAME_BYTES]


def seal(key: bytes, data: bytes, context: str) -> bytes:
    """A nonce, and `data` under AES-256-GCM, bound to its context."""
    nonce = secrets.token_bytes(NONCE_BYTES)
    return nonce + AESGCM(key).encrypt(nonce, data, context.encode())


def unseal(key: bytes, sealed: bytes, context: str) -> bytes:
    """The inverse of `seal`. Raises `DamagedSecret` for what was changed, or belongs elsewhere."""
    try:
        nonce, text = sealed[:NONCE_BYTES], sealed[NONCE_BYTES:]
        return AESGCM(key).decrypt(nonce, text, context.encode())
    except (InvalidTag, ValueError):
        raise DamagedSecret(
            f"{context} was changed since it was wrapped, or belongs to something else",
            remedy="restore it from a backup",
        ) from None


def _taken_apart(master: Master, wrapped: bytes, context: str) -> tuple[bytes, bytes]:
    """The name of the key that wrapped something, and what follows it."""
    if wrapped.startswith(master.mark):
        rest = wrapped[len(master.mark) :]
        return rest[:NAME_BYTES], rest[NAME_BYTES:]
    if wrapped.startswith((FileMaster.mark, CommandMaster.mark)):
        by_file = wrapped.startswith(FileMaster.mark)
        setting = "GENMILL_KEY_FILE" if by_file else "GENMILL_KEY_COMMAND"
        by = "a file" if by_file else "a command"
        raise WrongKey(
            f"{context} was wrapped by {by}, not as the settings say now",
            remedy=f"set {setting} as it was then; if the keys were wrapped anew since, restart "
            f"with the new {setting}",
        )
    raise DamagedSecret(
        f"{context} was not wrapped by an installation key", remedy="restore a backup"
    )
