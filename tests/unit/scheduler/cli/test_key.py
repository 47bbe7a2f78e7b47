"""`genmill key`: what it prints, and that no secret is ever among it."""

import base64
import json
import logging
import re
from pathlib import Path

import pytest

from tests.keyrings import keyring_of, own_chain
from worker.services.ledger import write_ledger

ID = re.compile(r"key_[0-9a-f]{16}\n")


def test_a_key_from_its_creation_to_its_revocation(genmill):
    made = genmill("key", "create", "signing", "--name", "Example Ltd")
    assert (made.code, made.err) == (0, "")
    assert ID.fullmatch(made.out)
    first = made.out.strip()
    second = genmill("key", "rotate", "signing").out.strip()
    assert genmill("key", "revoke", first, "--reason", "it leaked").out.strip() == first
    found = {each["id"]: each for each in genmill("key", "list", "--json").json}
    assert [each["purpose"] for each in found.values()] == ["authority", "signing", "signing"]
    assert (found[first]["state"], found[first]["reason"]) == ("revoked", "it leaked")
    assert (found[second]["state"], found[second]["signer"]) == ("current", "Example Ltd")
    assert genmill("key", "list", "--purpose", "signing", "-q").out.split() == [first, second]
    shown = genmill("key", "list").out
    assert ["revoked" in line for line in shown.splitlines()] == [False, False, True, False]
    assert genmill("key", "revoke", first, "--reason", "once more").code == 0  # changes nothing
    [entry] = genmill("audit", "--action", "revoked", "--json").json
    assert entry["detail"] == {"reason": "it leaked"}


def test_tenants_have_keys_of_their_own(genmill, monkeypatch):
    mine = genmill("key", "create", "watermark").out.strip()
    theirs = genmill("key", "create", "watermark", "--tenant", "acme", "--json").json
    assert theirs["tenant"] == "acme"
    again = genmill("key", "create", "watermark", "--tenant", "acme")
    assert (again.code, again.out) == (2, "")
    assert f"{theirs['id']} is the current watermark key already; `genmill key rotate" in again.err
    monkeypatch.setenv("GENMILL_TENANT", "acme")
    assert genmill("key", "rotate", "watermark", "--json").json["tenant"] == "acme"
    assert genmill("key", "rotate", mine, "--json").json["tenant"] == "default"


def test_what_genmill_makes_itself_need_not_be_created(genmill, services):
    genmill("key", "create", "signing")
    write_ledger(services)  # as a scheduler does
    for purpose in ("authority", "head"):
        again = genmill("key", "create", purpose)
        assert (again.code, "there is nothing to do; `genmill key rotate" in again.err) == (2, True)


@pytest.mark.parametrize(
    ("words", "code", "says"),
    [
        (("create", "signning"), 2, "'signning' is not one of 'authority', 'signing'"),
        (("create", "signing", "--tenant", ""), 2, "'' cannot be the name of a tenant"),
        (("rotate", "watermark", "--tenant", ""), 4, "tenant '' has no current watermark key"),
        (
            ("revoke", "key_1", "--reason", " "),
            2,
            "a reason of 1 characters; say why in 1 to 1,000",
        ),
        (("revoke", "key_1", "--reason", "x" * 1001), 2, "a reason of 1,001 characters; say"),
        (("rewrap", "--old-key-command", "'"), 2, "--old-key-command cannot be taken apart"),
        (("create", "signing", "--certificate", "c.pem"), 2, "belong together: give both"),
        (("create", "signing", "--name", "\n"), 2, "cannot be the name of an organisation"),
        (("create", "watermark", "--tenant", "a b"), 2, "use 1 to 100 letters"),
        (("rotate", "head"), 4, "this installation has no current head key; `genmill key create"),
        (("rotate", "key_0"), 4, "no key 'key_0'; there are none"),
        (("revoke", "key_0", "--reason", "x"), 4, "no key 'key_0'"),
        (("revoke", "key_0"), 2, "Missing option '--reason'"),
    ],
)
def test_what_cannot_be_is_refused_in_a_line(genmill, words, code, says):
    told = genmill("key", *words)
    assert (told.code, told.out) == (code, "")
    assert says in told.err
    assert told.err.count("\n") == 1
    assert genmill("key", "list", "--json").json == []


def test_a_user_s_own_certificate_is_imported_and_replaced_by_another(genmill):
    for number in (1, 2):
        given = own_chain()
        Path(f"chain{number}.pem").write_text(given.chain)
        Path(f"key{number}.pem").write_bytes(given.private)
    words = ("--certificate", "chain{}.pem", "--private-key", "key{}.pem")
    made = genmill("key", "create", "signing", *(each.format(1) for each in words), "--json")
    assert made.json["signer"] == "They"
    assert genmill("key", "rotate", "signing").code == 2
    rotated = genmill("key", "rotate", "signing", *(each.format(2) for each in words))
    assert ID.fullmatch(rotated.out), rotated.err
    wrong = genmill("key", "rotate", "signing", "--certificate=key1.pem", "--private-key=key2.pem")
    assert (wrong.code, "PRIVATE" in wrong.err) == (2, False)


def test_the_bundle_is_written_to_a_file_or_into_a_folder(genmill):
    genmill("key", "create", "signing")
    assert genmill("key", "export", "trust.json").out == "trust.json\n"
    told = genmill("key", "export", "shared", "--json").json
    assert told == {"files": ["shared/trust.json", "shared/authorities.pem"], "keys": 2}
    assert json.loads(Path("trust.json").read_text())["format"] == "genmill-trust-1"
    assert Path("shared/authorities.pem").read_text().count("BEGIN CERTIFICATE") == 1


def test_no_command_and_no_log_shows_a_secret_nor_does_the_database(
    genmill, services, home, caplog
):
    said = ""
    with caplog.at_level(logging.DEBUG):
        for line in (
            "create signing",
            "create head",
            "create watermark --json",
            "rotate signing --json",
            "list --json",
            "list --full",
            "export shared",
        ):
            told = genmill("key", *line.split())
            assert told.code == 0, told.err
            said += told.out + told.err
    ring = keyring_of(services.database, services.settings)
    master = (home / "keys" / "master.key").read_text().strip()
    secrets = [ring.secret_of(key.id) for key in ring.keys]
    forms = [master, master.upper(), "PRIVATE KEY"]
    for secret in secrets:
        forms += [secret.hex(), base64.b64encode(secret).decode()]
        if secret.startswith(b"-----"):
            forms.append(secret.decode().splitlines()[1])
    said += caplog.text + "".join(each.read_text() for each in Path("shared").iterdir())
    assert len(secrets) == 5
    assert [form for form in forms if form in said] == []
    if services.database.dialect == "sqlite":
        stored = b"".join(each.read_bytes() for each in home.glob("genmill.db*"))
        lines = [each.splitlines()[1] for each in secrets if each.startswith(b"-----")]
        raw = [each for each in secrets if not each.startswith(b"-----")]
        assert (len(lines), len(raw)) == (4, 1)
        assert [each for each in lines + raw if each in stored] == []


def test_a_lost_installation_key_says_so(genmill, home):
    genmill("key", "create", "watermark")
    (home / "keys" / "master.key").unlink()
    told = genmill("key", "create", "head")
    assert told.code == 1
    assert "the installation key is missing: there is no" in told.err
    assert genmill("key", "list", "-q").code == 0
    checked = genmill("doctor", "--check", "keys")
    assert (checked.code, "is missing: there is no" in checked.out) == (1, True)


def test_doctor_says_how_many_keys_there_are(genmill):
    assert "`genmill key create` makes them" in genmill("doctor", "--check", "keys").out
    genmill("key", "create", "signing")
    genmill("key", "rotate", "signing")
    told = genmill("doctor", "--check", "keys")
    assert (told.code, "3 on record, 2 of them current" in told.out) == (0, True)


def test_a_job_whose_marks_need_keys_names_all_that_are_missing(genmill, prose):
    words = ("enqueue", "generate", "prose", "--count", "1", "--marks", "eu-art50")
    refused = genmill(*words)
    assert refused.code == 4
    for purpose in ("signing", "watermark"):
        assert f"has no {purpose} key" in refused.err
        assert f"`genmill key create {purpose}` makes one" in refused.err


def test_a_job_pins_its_key_and_the_data_that_its_signatures_state(genmill, family_tree):
    Path("signed.toml").write_text('marks = ["c2pa"]\n')
    words = ("enqueue", "generate", "digits:3", "--count", "1", "--marks", "signed.toml")
    refused = genmill(*words)
    assert (refused.code, "`genmill key create signing` makes one" in refused.err) == (4, True)
    key = genmill("key", "create", "signing").out.strip()
    marks = genmill(*words, "--json").json["spec"]["marks"]
    assert marks["keys"] == {"signing": key}
    assert marks["settings"]["c2pa"] == {"trained_on": ["pictures:1"]}
