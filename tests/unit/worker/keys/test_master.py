"""The installation key, in a file and behind a command: wrong, lost, exposed, and right."""

import os
import shlex
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from db.errors import BadInput, Refused, Unreachable, WrongKey
from tests.keyrings import settings_in
from worker.keys import master as master_module
from worker.keys.master import CommandMaster, FileMaster, make_key_file, open_master

SECRET = b"the secret of a tenant"
# a KMS that XORs: what it gets never stands in what it writes
KMS = """
import sys
with open({calls!r}, "a") as calls:
    print(*sys.argv[1:], file=calls)
sys.stdout.buffer.write(bytes(each ^ {key} for each in sys.stdin.buffer.read()))
"""


@pytest.fixture
def master(tmp_path):
    return open_master(settings_in(tmp_path / "home"))


@pytest.fixture
def kms(tmp_path):
    """A function that writes a command with a key; the calls are lines of the file `calls`."""

    def make(key=0x5A, program=KMS):
        script = tmp_path / f"kms-{key}.py"
        script.write_text(program.format(key=key, calls=str(tmp_path / "calls")))
        return f"{sys.executable} {script}"

    return make


def test_what_is_wrapped_comes_back_and_cannot_be_read(master, tmp_path):
    wrapped = master.wrap(SECRET, "key a")
    assert SECRET not in wrapped
    assert master.unwrap(wrapped, "key a") == SECRET
    assert master.wrap(SECRET, "key a") != wrapped
    path = tmp_path / "home" / "keys" / "master.key"
    assert (path.stat().st_mode & 0o777, len(bytes.fromhex(path.read_text()))) == (0o400, 32)
    assert [each.name for each in path.parent.iterdir()] == ["master.key"]


def test_a_secret_cannot_stand_in_another_s_place(master):
    with pytest.raises(WrongKey, match="key b was changed since it was wrapped, or belongs"):
        master.unwrap(master.wrap(SECRET, "key a"), "key b")


@pytest.mark.parametrize("at", [20, -1])
def test_a_changed_byte_is_found(master, at):
    wrapped = bytearray(master.wrap(SECRET, "key a"))
    wrapped[at] ^= 1
    with pytest.raises(WrongKey, match="key a was changed"):
        master.unwrap(bytes(wrapped), "key a")


@pytest.mark.parametrize("wrapped", [b"", b"gmf1", b"gmf1short", b"something else entirely"])
def test_what_was_never_wrapped_is_refused(master, wrapped):
    master.wrap(SECRET, "key a")
    with pytest.raises(WrongKey):
        master.unwrap(wrapped, "key a")


def test_a_lost_key_says_so_and_is_not_made_anew(master, tmp_path):
    wrapped = master.wrap(SECRET, "key a")
    path = tmp_path / "home" / "keys" / "master.key"
    path.unlink()
    with pytest.raises(WrongKey, match="installation key is missing: there is no"):
        master.unwrap(wrapped, "key a")
    assert not path.exists()


def test_another_key_is_told_from_the_one_that_wrapped(master, tmp_path):
    wrapped = master.wrap(SECRET, "key a")
    other = open_master(settings_in(tmp_path / "other"))
    other.wrap(SECRET, "key a")
    with pytest.raises(WrongKey, match="is not the one that wrapped key a") as told:
        other.unwrap(wrapped, "key a")
    assert "restart with the new GENMILL_KEY_FILE" in str(told.value)


def test_a_file_that_was_named_is_not_made(tmp_path):
    named = FileMaster(tmp_path / "mounted" / "key")
    with pytest.raises(WrongKey, match="missing"):
        named.wrap(SECRET, "key a")
    assert not (tmp_path / "mounted").exists()


@pytest.mark.parametrize("text", ["", "ab" * 31, "ab" * 33, "zz" * 32, "\xff" * 64])
def test_a_file_that_is_no_key_is_refused_without_showing_it(tmp_path, text):
    path = tmp_path / "key"
    path.write_text(text, "latin-1")
    path.chmod(0o600)
    with pytest.raises(Refused, match="64 hexadecimal digits") as refused:
        FileMaster(path).wrap(SECRET, "key a")
    assert not text or text not in str(refused.value)


@pytest.mark.parametrize(
    ("make", "says"),
    [
        (os.mkfifo, "is not a file; give a file"),
        (lambda path: path.symlink_to("/dev/zero"), "is not a file; give a file"),
        (Path.mkdir, "cannot be read: Is a directory; give a file"),
        (lambda path: path.write_text("ab" * 3000), "is too large for an installation key"),
    ],
)
def test_what_would_be_waited_for_or_is_too_large_is_no_key(tmp_path, make, says):
    path = tmp_path / "key"
    make(path)
    if path.is_file():
        path.chmod(0o600)
    with pytest.raises(BadInput, match=f"^{path} {says}"):
        FileMaster(path).wrap(SECRET, "key a")


def key_file(folder):
    path = folder / "key"
    path.write_text("ab" * 32)
    return path


@pytest.mark.parametrize(
    ("mode", "who"), [(0o644, "user of this machine"), (0o440, "user of its group")]
)
def test_a_file_that_others_can_use_is_refused(tmp_path, mode, who):
    path = key_file(tmp_path)
    path.chmod(mode)
    with pytest.raises(Refused, match=f"every {who}; chmod go-rwx"):
        FileMaster(path).wrap(SECRET, "key a")
    path.chmod(0o400)
    assert FileMaster(path).unwrap(FileMaster(path).wrap(SECRET, "key a"), "key a") == SECRET


def test_a_group_that_shares_the_home_shares_its_key(tmp_path):
    tmp_path.chmod(0o2770)
    path = key_file(tmp_path)
    path.chmod(0o440)
    FileMaster(path).wrap(SECRET, "key a")
    FileMaster(path, home=tmp_path).wrap(SECRET, "key a")
    path.chmod(0o444)
    with pytest.raises(Refused, match="every user of this machine; chmod o-rwx"):
        FileMaster(path).wrap(SECRET, "key a")
    (tmp_path / "keys").mkdir(mode=0o700)
    FileMaster(tmp_path / "keys" / "master.key", home=tmp_path).wrap(SECRET, "key a")


def test_a_file_that_cannot_be_read_is_named(tmp_path, plain_user):
    path = tmp_path / "key"
    path.write_text("ab" * 32)
    path.chmod(0)
    with pytest.raises(BadInput, match=f"{path} cannot be read: Permission denied"):
        FileMaster(path).wrap(SECRET, "key a")


def test_of_processes_that_need_a_key_at_once_all_get_the_same(tmp_path):
    path = tmp_path / "keys" / "master.key"
    with ThreadPoolExecutor(8) as threads:
        list(threads.map(lambda _: make_key_file(path, tmp_path), range(8)))
    assert [each.name for each in path.parent.iterdir()] == ["master.key"]


def test_a_command_wraps_one_key_a_process(kms, tmp_path):
    master = CommandMaster(kms())
    wrapped = [master.wrap(SECRET, f"key {n}") for n in range(3)]
    again = CommandMaster(kms())
    assert [again.unwrap(each, f"key {n}") for n, each in enumerate(wrapped)] == [SECRET] * 3
    # wrapped once and tried, then unwrapped once by the other process
    assert (tmp_path / "calls").read_text().split() == ["wrap", "unwrap", "unwrap"]
    assert SECRET not in b"".join(wrapped)


def test_a_command_with_another_key_is_told(kms):
    wrapped = CommandMaster(kms()).wrap(SECRET, "key a")
    with pytest.raises(WrongKey, match="did not give back the key that wrapped key a"):
        CommandMaster(kms(0x11)).unwrap(wrapped, "key a")


@pytest.mark.parametrize(
    ("command", "error", "says"),
    [
        ("sh -c 'cat'", Refused, "does not wrap: it wrote 32 bytes, the key itself among them"),
        ("true", Refused, "does not wrap: it wrote 0 bytes"),
        ("sh -c 'cat >/dev/null; echo nonsense'", Refused, "does not unwrap what it has wrapped"),
        ("sh -c 'cat >&2; exit 7'", Unreachable, "failed with 7; run it by hand"),
        ("sh -c 'yes no'", Refused, "writes more than 65,535 bytes; run it by hand"),
        ("no-such-program", Refused, "cannot be run: there is no such program"),
        ("/no/such/program", Refused, "cannot be run: No such file"),
        ("/dev/null", Refused, "cannot be run: Permission denied"),
        ("'", Refused, "cannot be taken apart"),
        (" ", Refused, "holds no command"),
    ],
)
def test_a_command_that_does_not_protect_is_refused(command, error, says, capfd):
    with pytest.raises(error, match=says):
        CommandMaster(command).wrap(SECRET, "key a")
    assert capfd.readouterr() == ("", "")


@pytest.mark.parametrize("command", ["sleep 9", "sh -c 'sleep 9 & true'"])
def test_a_command_that_does_not_end_is_not_waited_for(command, monkeypatch):
    monkeypatch.setattr(master_module, "COMMAND_S", 0.1)
    with pytest.raises(Unreachable, match="has not ended after 0 s"):
        CommandMaster(f"sh -c {shlex.quote(command)}").wrap(SECRET, "key a")


@pytest.mark.parametrize("command", ["sh -c 'exit 7'", "no-such-program"])
def test_the_arguments_of_a_command_are_not_shown(command):
    with pytest.raises((Refused, Unreachable)) as told:
        CommandMaster(f"{command} --token=s3cret --user=ann").wrap(SECRET, "key a")
    assert "s3cret" not in str(told.value)
    assert f"`{command.split()[0]} ... wrap`" in str(told.value)


def test_what_a_file_wrapped_is_not_given_to_a_command(kms, master):
    with pytest.raises(
        WrongKey, match=r"^key a was wrapped by a file, not as the settings say now; set"
    ):
        CommandMaster(kms()).unwrap(master.wrap(SECRET, "key a"), "key a")
