"""Keys from their creation to their revocation, and the bundle that strangers verify with."""

import json

import pytest
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa

from db.errors import BadInput, NotFound, Refused, WrongKey
from tests.keyrings import add_key, keyring_of, own_chain, revoke_key, rotate_key, settings_in
from worker.keys import certificates
from worker.keys.bundle import export_bundle, parse_bundle, read_bundle
from worker.keys.changes import Import


@pytest.fixture
def settings(tmp_path):
    return settings_in(tmp_path / "home")


@pytest.fixture
def add(database, settings):
    return lambda purpose, **options: add_key(database, settings, purpose, **options)


def test_the_first_signing_key_makes_the_authority_that_issues_the_next(database, settings, add):
    first = add("signing", name="Example Ltd")
    second = rotate_key(database, settings, first)
    ring = keyring_of(database, settings)
    [authority] = ring.all("authority")
    assert [key.id for key in ring.all("signing")] == [first, second]
    for key in ring.all("signing"):
        signing, issuer = certificates.read_certificates(key.public)
        signing.verify_directly_issued_by(issuer)
        assert key.public.endswith(authority.public)
        assert certificates.organisation_of(key.public) == "Example Ltd"
    assert ring.anchors == authority.public
    assert (ring.signer().key_id, ring.signer().algorithm) == (second, "es256")


def test_secrets_come_back_and_do_not_show(database, settings, add):
    mine, other = add("watermark"), add("watermark", tenant="other")
    head = add("head")
    ring = keyring_of(database, settings)
    assert len(ring.secret("watermark")) == 32
    assert ring.secret_of(mine) == ring.secret("watermark") != ring.secret_of(other)
    assert keyring_of(database, settings, tenant="other").secret("watermark") == ring.secret_of(
        other
    )
    key_id, private = ring.head_key()
    assert (key_id, isinstance(private, ed25519.Ed25519PrivateKey)) == (head, True)
    add("signing")
    shown = f"{keyring_of(database, settings)!r} {keyring_of(database, settings).signer()!r}"
    assert "PRIVATE" not in shown
    assert "wrapped" not in shown


def test_a_tenant_without_a_key_is_told_how_to_make_one(database, settings):
    with pytest.raises(NotFound, match="'acme' has no watermark key; `genmill key create water"):
        keyring_of(database, settings, tenant="acme").secret("watermark")
    with pytest.raises(NotFound, match="this installation has no head key; `genmill key create h"):
        keyring_of(database, settings).head_key()


def test_a_tenant_whose_key_was_revoked_is_told_so(database, settings, add):
    key = add("watermark")
    revoke_key(database, key)
    why = f"no current watermark key: key {key} was revoked on .*: it was stolen; .* makes another"
    with pytest.raises(NotFound, match=why):
        keyring_of(database, settings).current("watermark")


def test_a_job_uses_the_key_that_its_spec_pins_until_it_is_revoked(database, settings, add):
    old = add("watermark")
    new = rotate_key(database, settings, old)
    ring = keyring_of(database, settings)
    assert ring.current("watermark").id == new
    with pytest.raises(Refused, match=f"key {old} is no signing key: it is for watermark"):
        ring.use({"signing": old}).current("signing")
    pinned = ring.use({"watermark": old})
    assert pinned.secret("watermark") == ring.secret_of(old) != ring.secret("watermark")
    revoke_key(database, old)
    ring = keyring_of(database, settings)
    assert len(ring.secret_of(old)) == 32  # to find what it marked
    with pytest.raises(Refused, match=f"key {old} was revoked on .*: it was stolen; submit"):
        ring.use({"watermark": old}).secret("watermark")
    assert [key.state for key in ring.all("watermark")] == ["revoked", "current"]


def test_what_an_authority_issued_is_revoked_with_it(database, settings, add):
    signing, head = add("signing"), add("head")
    [authority] = keyring_of(database, settings).all("authority")
    revoke_key(database, authority.id)
    ring = keyring_of(database, settings)
    assert {key.id for key in ring.keys if key.state == "revoked"} == {authority.id, signing}
    assert ring.current("head").id == head
    again = add("signing")
    ring = keyring_of(database, settings)
    assert ring.current("signing").id == again
    assert len(ring.all("authority")) == 2


@pytest.mark.parametrize("fault", ["mode", "content", "command"])
def test_a_refused_installation_key_is_no_fault_of_what_needs_it(database, settings, add, fault):
    key = add("watermark")
    if fault == "command":
        settings = settings.model_copy(update={"key_command": "'"})
    elif fault == "mode":
        settings.master_key.chmod(0o644)
    else:
        settings.master_key.chmod(0o600)
        settings.master_key.write_text("half of it")
    with pytest.raises(WrongKey):
        keyring_of(database, settings).secret_of(key)


def test_a_machine_with_another_installation_key_adds_nothing(database, settings, add, tmp_path):
    add("watermark")
    other = settings_in(tmp_path / "elsewhere")
    with pytest.raises(WrongKey, match="missing"):
        add_key(database, other, "head")
    assert not (tmp_path / "elsewhere").exists()
    assert len(keyring_of(database, settings).keys) == 1


def test_a_current_key_is_replaced_only_by_rotating_and_a_replaced_one_not_at_all(
    database, settings, add
):
    key = add("head")
    with pytest.raises(Refused, match=f"{key} is the current head key already; .*`genmill key rot"):
        add("head", tenant="whoever")  # the ledger is the whole installation's
    rotate_key(database, settings, key)
    with pytest.raises(Refused, match="was rotated already"):
        rotate_key(database, settings, key)


@pytest.mark.parametrize(
    ("private", "algorithm"),
    [
        (ec.generate_private_key(ec.SECP256R1()), "es256"),
        (ec.generate_private_key(ec.SECP384R1()), "es384"),
        (ed25519.Ed25519PrivateKey.generate(), "ed25519"),
        (rsa.generate_private_key(65537, 2048), "ps256"),
    ],
    ids=lambda each: each if isinstance(each, str) else "",
)
def test_a_user_s_own_certificate_is_imported(database, settings, add, private, algorithm):
    imported = own_chain(private)
    key = add("signing", imported=imported)
    ring = keyring_of(database, settings)
    assert ring.all("authority") == ()
    assert (ring.signer().algorithm, ring.signer().private) == (algorithm, imported.private)
    assert imported.chain.endswith(ring.anchors)
    with pytest.raises(Refused, match=f"key {key} was imported.*--certificate"):
        rotate_key(database, settings, key)
    assert "PRIVATE" not in repr(imported)


IMPORTS = {
    "is not valid at its dates": (lambda: own_chain(days=-1), "and not now; give one that is val"),
    "is for no signatures": (lambda: own_chain(usage="none"), "is not for digital signatures"),
    "is for web servers": (lambda: own_chain(usage="web"), "has no extended key usage that C2PA"),
    "names no issuer": (lambda: own_chain(names_issuer=False), "does not name the key of its iss"),
    "has another key": (
        lambda: Import(own_chain().chain, own_chain().private),
        "the private key is not that of the first certificate",
    ),
    "is of another curve": (
        lambda: own_chain(ec.generate_private_key(ec.SECP256K1())),
        "of a size that C2PA does not sign with; use ECDSA",
    ),
    "has a short key": (
        lambda: own_chain(rsa.generate_private_key(65537, 1024)),
        "of a size that C2PA does not sign with",
    ),
    "is no chain": (lambda: _mixed(own_chain(), own_chain()), "was not issued by"),
    "is not PEM": (lambda: Import("no PEM", own_chain().private), "certificates are not PEM"),
    "has no key": (lambda: Import(own_chain().chain, b"secret"), "the private key is not PEM"),
}


def _mixed(one, other):
    leaf, rest = one.chain.index("-----END"), other.chain.rindex("-----BEGIN")
    return Import(one.chain[: leaf + 26] + other.chain[rest:], one.private)


@pytest.mark.parametrize("fault", IMPORTS)
def test_a_certificate_is_not_imported_that(database, settings, add, fault):
    make, says = IMPORTS[fault]
    with pytest.raises(BadInput, match=says) as refused:
        add("signing", imported=make())
    assert "secret" not in str(refused.value)
    assert keyring_of(database, settings).keys == ()


def test_a_certificate_that_has_run_out_is_told():
    with pytest.raises(Refused, match=r"key_a was valid until .*; `genmill key rotate key_a` mak"):
        certificates.refuse_expired("key_a", own_chain(days=-1).chain)


def test_an_encrypted_private_key_is_told_what_to_do_with():
    key = ec.generate_private_key(ec.SECP256R1())
    pem = key.private_bytes(
        certificates.serialization.Encoding.PEM,
        certificates.serialization.PrivateFormat.PKCS8,
        certificates.serialization.BestAvailableEncryption(b"word"),
    )
    with pytest.raises(BadInput, match="encrypted with a passphrase; `openssl pkey"):
        certificates.read_private(pem)


@pytest.mark.parametrize("name", ["", "x" * 65, "a\nb"])
def test_a_name_that_no_certificate_can_hold_is_refused(add, name):
    with pytest.raises(Refused, match="cannot be the name of an organisation"):
        add("signing", name=name)


def test_the_bundle_has_all_that_is_public_and_no_secret(database, settings, add, tmp_path):
    signing, mark = add("signing"), add("watermark", tenant="acme")
    head = add("head")
    new = rotate_key(database, settings, signing)
    revoke_key(database, new)
    ring = keyring_of(database, settings)
    files = export_bundle(ring, tmp_path / "out")
    names = ["trust.json", "authorities.pem", f"ledger-{head}.pem"]
    assert [each.name for each in files] == names
    assert files[2].read_text() == ring.get(head).public
    text = files[0].read_text()
    assert [word for word in ("PRIVATE", "acme", "wrapped") if word in text] == []
    read = read_bundle(tmp_path / "out")
    assert [(key.id, key.state) for key in read.keys] == [(key.id, key.state) for key in ring.keys]
    assert (read.anchors, files[1].read_text()) == (ring.anchors, ring.anchors)
    assert read.get(head).public == ring.get(head).public
    assert read.signing_key(ring.get(signing).serial).id == signing
    assert read.get(new).reason == "it was stolen"
    for secret in (lambda: read.secret_of(mark), lambda: read.secret_of(signing)):
        with pytest.raises(WrongKey, match="a trust bundle has none"):
            secret()
    [authority] = ring.all("authority")
    for key in (authority.id, head):
        revoke_key(database, key)
    _, anchors = export_bundle(keyring_of(database, settings), tmp_path / "late")
    assert anchors.read_text() == ""
    [one] = export_bundle(ring, tmp_path / "one.json")
    assert read_bundle(one) == read


BUNDLES = {
    "is not JSON": b"{",
    "is another document": b'{"keys": []}',
    "is of a later format": b'{"format": "genmill-trust-9", "keys": []}',
    "has a key without an id": b'{"format": "genmill-trust-1", "keys": [{"purpose": "head"}]}',
    "has a signing key without PEM": json.dumps(
        {
            "format": "genmill-trust-1",
            "keys": [
                {
                    "id": "key_a",
                    "purpose": "signing",
                    "public": "no PEM",
                    "created_at": "2026-01-01T00:00:00Z",
                }
            ],
        }
    ).encode(),
}


@pytest.mark.parametrize("fault", BUNDLES)
def test_a_file_is_refused_as_a_bundle_that(fault):
    with pytest.raises(BadInput, match=r"a\.json is no trust bundle of Genmill; `genmill key exp"):
        parse_bundle(BUNDLES[fault], "a.json")
