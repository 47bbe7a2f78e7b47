"""Content Credentials, read by c2pa-python's own reader as well as by ours."""

import io
import json
import os
from dataclasses import replace
from types import SimpleNamespace

import c2pa
import numpy as np
import pytest
from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa
from cryptography.x509.oid import ExtendedKeyUsageOID
from PIL import Image

from tests.keyrings import (
    add_key,
    keyring_of,
    own_chain,
    revoke_key,
    rotate_key,
    settings_in,
)
from worker.data.dataset import Shape
from worker.keys import certificates
from worker.keys.bundle import bundle, parse_bundle
from worker.keys.certificates import read_certificates, read_private
from worker.mark_profile import Profile
from worker.marks import c2pa as mark
from worker.marks.base import Marking
from worker.marks.credentials import library
from worker.marks.credentials.boxes import boxes, byte_string, read_byte_string
from worker.media import find_medium
from worker.media.samples.containers import SampleRecord
from worker.media.samples.record import AI_GENERATED, Origin
from worker.media.text import as_text

ORIGIN = Origin("gan", "digits:3", "ab" * 32, 7, {"micro_batch": 4}, 4, torch="2", genmill="1+g0")
SHAPES = {
    "image": Shape("image", ("cat",), size=28, channels=1),
    "audio": Shape("audio", sample_rate=8000),
    "text": Shape("text"),
}
STATED = {"licence": {"licence": "CC-BY-4.0", "copyright": ""}, "c2pa": {"trained_on": ["mnist:1"]}}
MARK = mark.MARK
TEXT_AT = b"once upon"


@pytest.fixture(autouse=True)
def no_patterns():
    """Each test begins as a process does."""
    mark.forget_patterns()


@pytest.fixture
def settings(tmp_path):
    return settings_in(tmp_path / "home")


@pytest.fixture
def key(database, settings):
    return add_key(database, settings, "signing", name="Example Ltd")


@pytest.fixture
def keys(database, settings, key):
    """The keyring as it is now."""
    return lambda: keyring_of(database, settings)


def marking_of(media, ring, **settings):
    return Marking(Profile(name="p", marks=("c2pa",), settings=settings), ring, SHAPES[media])


def make(media, count=3):
    """Samples and their files."""
    shared = ORIGIN.shared(label="cat")
    random = np.random.default_rng(0)
    outputs = {
        "image": lambda: random.integers(0, 256, (28, 28, 1), np.uint8),
        "audio": lambda: random.uniform(-0.5, 0.5, 800).astype(np.float32),
        "text": lambda: '春眠不觉晓, once upon a "time"\n' + str(random.integers(1000)),
    }
    samples = [SampleRecord(n, outputs[media](), shared) for n in range(count)]
    return samples, find_medium(media).encode(samples, SHAPES[media])


def sign(media, ring, count=3):
    samples, files = make(media, count)
    return files, MARK.apply_bytes(samples, files, marking_of(media, ring, **STATED))


def read(data, ring, media="image"):
    return MARK.read(data, ring, find_medium(media))


def other_reader(data, form, anchors=None):
    """What the library's own reader says, with settings of its own; of a text with a sidecar."""
    trust = {"trust": {"trust_anchors": anchors}, "verify": {"verify_trust": True}}
    context = c2pa.Context.from_dict(trust) if anchors else None
    store = None
    if form == "text/plain":
        files = as_text(data, data)
        data, store = files[".txt"], files[".c2pa"]
    with c2pa.Reader(form, io.BytesIO(data), store, context=context) as reader:
        return json.loads(reader.json())


def flipped(data, at, bits=1):
    changed = bytearray(data)
    changed[at] ^= bits
    return bytes(changed)


FORMS = {"image": "image/png", "audio": "audio/wav", "text": "text/plain"}


@pytest.mark.parametrize(("media", "form"), FORMS.items())
def test_another_reader_finds_what_was_signed(keys, media, form):
    _, signed = sign(media, keys())
    for number, data in enumerate(signed):
        found = other_reader(data, form, keys().anchors)
        assert found["validation_state"] == "Trusted"
        manifest = found["manifests"][found["active_manifest"]]
        assert manifest["signature_info"]["issuer"] == "Example Ltd"
        assert "thumbnail" not in manifest
        said = {each["label"]: each["data"] for each in manifest["assertions"]}
        [created] = said["c2pa.actions.v2"]["actions"]
        assert (created["action"], created["digitalSourceType"]) == ("c2pa.created", AI_GENERATED)
        assert said["genmill.origin"] == {
            "model": "digits:3",
            "weights_sha256": "ab" * 32,
            "family": "gan",
            "seed": 7,
            "index": number,
            "label": "cat",
            "genmill": "1+g0",
            "trained_on": ["mnist:1"],
            "licence": {"licence": "CC-BY-4.0"},
        }
        assert manifest["claim_generator_info"][0]["name"] == "Genmill"
        assert len(data) < 12_000
    # without our trust anchors, others see that it is intact, and that they do not know the signer
    assert other_reader(signed[0], form)["validation_state"] == "Valid"


@pytest.mark.parametrize("media", FORMS)
def test_our_reading_says_what_was_expected(keys, key, media):
    samples, _ = make(media)
    _, signed = sign(media, keys())
    marking = marking_of(media, keys(), **STATED)
    for sample, data in zip(samples, signed, strict=True):
        found = read(data, keys(), media)
        assert (found.mark, found.state, found.why) == ("c2pa", "present", "")
        assert dict(MARK.expected(sample, marking)).items() <= found.says.items()
        assert found.says["key"] == key
        assert (found.says["signer"], found.says["generated"]) == ("Example Ltd", True)
        json.dumps(found.says)


@pytest.mark.parametrize("media", FORMS)
def test_without_the_signature_the_file_is_as_it_was(keys, media):
    files, signed = sign(media, keys())
    medium = find_medium(media)
    assert [MARK.signed_part(each, medium) for each in signed] == files
    assert [MARK.signed_part(each, medium) for each in files] == files
    records = [medium.read_record(each) for each in signed]
    for each in records:
        each.pop("c2pa", None)
    assert records == [medium.read_record(each) for each in files]


def test_a_signed_picture_opens_everywhere(keys):
    files, signed = sign("image", keys())
    for before, after in zip(files, signed, strict=True):
        one, other = (Image.open(io.BytesIO(each)) for each in (before, after))
        assert (np.asarray(one) == np.asarray(other)).all()
        assert one.info["genmill"] == other.info["genmill"]


@pytest.mark.parametrize(("media", "at"), [("image", -20), ("audio", 60), ("text", TEXT_AT)])
def test_a_flipped_byte_is_named(keys, media, at):
    _, [signed, *_] = sign(media, keys())
    data = bytearray(signed)
    data[signed.index(at) if isinstance(at, bytes) else at] ^= 1  # not of the manifest
    found = read(bytes(data), keys(), media)
    assert found.state == "damaged"
    assert "assertion.dataHash.mismatch" in found.says["broken"]
    assert "assertion.dataHash.mismatch" in found.why


@pytest.mark.parametrize("media", FORMS)
def test_bytes_of_the_manifest_that_no_signature_covers_are_as_they_were_written(keys, media):
    """Sizes, kinds and labels of boxes, the header of the signature, the chunk around all."""
    [content], [signed] = sign(media, keys(), 1)
    container = mark.CONTAINERS[find_medium(media).suffix]
    chunk, store = container.find(signed)
    places = [store.index(b"\x63pad") + 2]
    for box in boxes(store):
        places += [box.content.start - 6, box.content.start + 8, box.content.start + 25]
    toggles = [box.content.start + 24 for box in boxes(store)]  # of which readers know some bits
    changed = [container.insert(content, flipped(store, at)) for at in places]
    changed += [container.insert(content, flipped(store, at, 1 << 7)) for at in toggles]
    changed += [flipped(signed, chunk.start + 1), flipped(signed, chunk.stop - 2)]
    found = [read(each, keys(), media) for each in changed]
    assert {each.state for each in found} <= {"damaged", "absent"}
    assert any(each.says.get("broken") == [mark.UNSIGNED] for each in found)


@pytest.mark.parametrize("media", FORMS)
@pytest.mark.parametrize("curve", [ec.SECP256R1(), ec.SECP384R1(), ec.SECP521R1()])
def test_the_other_form_of_an_ecdsa_signature_is_a_change(database, settings, media, curve):
    """(r, n - s) is as valid as (r, s), and anybody can compute it."""
    imported = own_chain(ec.generate_private_key(curve))
    add_key(database, settings, "signing", imported=imported)
    ring = keyring_of(database, settings)
    samples, files = make(media, 1)
    marking = marking_of(media, ring)
    signed = MARK.apply_bytes(samples * 4, files * 4, marking)  # by a pattern
    signed += [mark._signing(marking).by_library(samples[0], files[0]) for _ in range(4)]
    assert {read(each, ring, media).state for each in signed} == {"present"}
    container, size = mark.CONTAINERS[find_medium(media).suffix], -(-curve.key_size // 8)
    for each in signed:
        store = container.find(each).store
        s = curve.group_order - int.from_bytes(store[-size:])
        other = container.insert(files[0], store[:-size] + s.to_bytes(size))
        found = read(other, ring, media)
        assert (found.state, found.says["broken"]) == ("damaged", [mark.UNSIGNED])


@pytest.mark.parametrize("media", FORMS)
def test_room_for_a_time_stamp_is_as_large_as_it_was(keys, media):
    [sample], [content] = make(media, 1)
    marking = marking_of(media, keys())
    container = mark.CONTAINERS[find_medium(media).suffix]
    [signed] = MARK.apply_bytes([sample], [content], marking)
    by_library = mark._signing(marking).by_library(sample, content)
    for data in (signed, by_library):
        assert read(data, keys(), media).state == "present"
        store = container.find(data).store
        for room in (b"\xa0", b"\xa1\x63pad\x47" + bytes(7), b"\xa2\x63pad\x40\x64pad2\x40"):
            changed = container.insert(content, with_room(store, room))
            assert changed != data
            assert read(changed, keys(), media).state == "damaged"
        if media == "text":
            found = MARK.read_beside(sample.output.encode(), with_room(store, room), keys())
            assert found.says["broken"] == [mark.UNSIGNED]
    if media != "text":  # of the size that is bound in a file, but in two pieces
        store = container.find(by_library).store
        at = store.rindex(b"\x63pad") + 4
        zeros = len(read_byte_string(store, at))
        room = b"\xa2\x63pad\x40\x64pad2" + byte_string(bytes(zeros - 6))
        found = read(container.insert(content, with_room(store, room)), keys(), media)
        assert found.says["broken"] == [mark.UNSIGNED]


def with_room(store, room):
    """A manifest store whose signature has this header that is not signed."""
    outer, manifest, *_, signature = boxes(store)
    at = store.rindex(b"\x63pad", 0, signature.body.stop - 64) - 1
    end = at + 5 + len(byte_string(read_byte_string(store, at + 5)))
    made = bytearray(store[:at] + room + store[end:])
    for box in (outer.content, manifest.content, signature.content, signature.body):
        size = slice(box.start - 8, box.start - 4)
        made[size] = (int.from_bytes(made[size]) + len(made) - len(store)).to_bytes(4)
    return bytes(made)


def test_room_for_a_time_stamp_holds_nothing(keys):
    [sample], [data] = make("image", 1)
    sample = replace(sample, index=2**40)  # for the library to sign
    [signed] = MARK.apply_bytes([sample], [data], marking_of("image", keys()))
    assert read(signed, keys()).state == "present"
    zeros = signed.index(bytes(1000))
    hidden = signed[:zeros] + b"a note" + signed[zeros + 6 :]
    store = mark.CONTAINERS[".png"].find(hidden).store
    hidden = mark.CONTAINERS[".png"].insert(data, store)  # with its check sum
    found = read(hidden, keys())
    assert (found.state, found.says["broken"]) == ("damaged", [mark.UNSIGNED])


def test_a_changed_statement_is_named(keys):
    _, [signed, *_] = sign("image", keys())
    assert signed.count(b"digits:3") >= 2
    at = signed.index(b"digits:3", signed.index(b"caBX"))
    changed = signed[:at] + b"digits:4" + signed[at + 8 :]
    found = read(changed, keys())
    assert found.state == "damaged"
    assert found.says["broken"] == ["assertion.hashedURI.mismatch"]


def test_a_file_without_the_mark_is_told_so(keys):
    for media in FORMS:
        files, _ = sign(media, keys())
        assert read(files[0], keys(), media).state == "absent"


@pytest.mark.parametrize(("media", "count"), [("image", 40), ("audio", 9), ("text", 9)])
def test_files_of_a_kind_are_signed_by_a_pattern_and_read_alike_by_the_library(keys, media, count):
    """What the pattern makes and reads, the library makes and reads, too."""
    ring, medium = keys(), find_medium(media)
    _, signed = sign(media, ring, count)
    container = mark.CONTAINERS[medium.suffix]
    assert [each is not None for each in mark._patterns.values()] == [True]
    for number, data in enumerate(signed):
        fast = mark._read_by_pattern(data, ring, container)
        assert fast == mark._read(data, ring, container)
        assert (fast.state, fast.says["claims"]["index"]) == ("present", number)
    assert len({MARK.read(each, ring, medium).says["manifest"] for each in signed}) == count


@pytest.mark.parametrize("media", ["image", "text"])
def test_the_pattern_is_not_fitted_by_a_file_with_any_byte_changed(keys, media):
    """Of the file or of the manifest: whatever is changed, the library reads it."""
    ring = keys()
    _, [signed, *_] = sign(media, ring)
    container = mark.CONTAINERS[find_medium(media).suffix]
    assert mark._read_by_pattern(signed, ring, container)
    for at in range(0, len(signed), 7):
        changed = bytearray(signed)
        changed[at] ^= 1
        assert mark._read_by_pattern(bytes(changed), ring, container) is None, at


def test_numbers_that_the_pattern_has_no_room_for_are_signed_by_the_library(keys):
    ring, numbers = keys(), [5, 2**32 - 1, 2**32, 2**40]
    [sample], [data] = make("image", 1)
    samples = [replace(sample, index=number) for number in numbers]
    signed = MARK.apply_bytes(samples, [data] * 4, marking_of("image", ring))
    assert [read(each, ring).says["claims"]["index"] for each in signed] == numbers


@pytest.mark.parametrize(
    "private",
    [
        ec.generate_private_key(ec.SECP384R1()),
        ed25519.Ed25519PrivateKey.generate(),
        rsa.generate_private_key(65537, 2048),
    ],
    ids=["es384", "ed25519", "ps256"],
)
def test_keys_of_every_kind_sign_by_a_pattern_too(database, settings, private):
    add_key(database, settings, "signing", imported=own_chain(private))
    ring = keyring_of(database, settings)
    _, signed = sign("image", ring)
    assert [each is not None for each in mark._patterns.values()] == [True]
    found = other_reader(signed[2], "image/png", ring.anchors)
    assert found["validation_state"] == "Trusted"
    assert found["manifests"][found["active_manifest"]]["signature_info"]["issuer"] == "They"


@pytest.mark.parametrize(
    "data",
    [b"", b"\x89PNG\r\n\x1a\n", b"no picture", bytes(4096), b"{", b'{"c2pa":"AAAA"}',
     b'{"text":"a","c2pa":1}', b'{"text":"a","c2pa":"AAAA"}', b'{"text":1,"c2pa":"?"}',
     b'{"text":"\\ud800","c2pa":"AAAA"}', b'{"a":' * 100_000],
)  # fmt: skip
def test_no_content_makes_reading_fail(keys, data):
    for media in FORMS:
        assert read(data, keys(), media).state in {"absent", "damaged"}


@pytest.mark.parametrize("size", range(0, 6000, 577))
def test_a_file_that_was_cut_is_never_present(keys, size):
    _, [signed, *_] = sign("image", keys(), 1)
    if size < len(signed):
        assert read(signed[:size], keys()).state in {"absent", "damaged"}


@pytest.mark.parametrize("media", FORMS)
def test_a_file_just_signed_is_not_read_again_unless_a_byte_of_it_changed(keys, media):
    samples, files = make(media, 2)
    marking = marking_of(media, keys(), **STATED)

    def read_back(data):
        return next(iter(MARK.read_back(samples[1:], [data], marking)))

    for at in (9, -2000, -1):
        _, signed = MARK.apply_bytes(samples, files, marking)
        changed = bytearray(signed)
        changed[at] ^= 1
        assert read_back(bytes(changed)).state != "present"
    _, signed = MARK.apply_bytes(samples, files, marking)
    assert read_back(signed) is None
    assert read_back(signed).state == "present"


def test_of_a_line_whatever_is_around_the_text_is_signed_too(keys):
    _, [signed, *_] = sign("text", keys())
    line = json.loads(signed)
    assert read(signed, keys(), "text").state == "present"
    for changed in ({"seed": 8}, {"prompt": "praise them"}, {"index": 1}):
        other = json.dumps(line | changed, ensure_ascii=False, separators=(",", ":")).encode()
        found = read(other, keys(), "text")
        assert (found.state, found.says["broken"]) == ("damaged", ["genmill.line.mismatch"])
    spaced = json.dumps(line).encode()
    assert read(spaced, keys(), "text").says["broken"] == ["genmill.line.mismatch"]
    twice = signed.replace(b'{"', b'{"text":"another","', 1)
    assert read(twice, keys(), "text").state == "damaged"


def test_a_text_without_its_line_is_read_by_the_manifest_beside_it(keys):
    _, [signed, another, *_] = sign("text", keys())
    files, others = as_text(signed, signed), as_text(another, another)
    found = MARK.read_beside(files[".txt"], files[".c2pa"], keys())
    assert (found.state, found.says["trust"], found.says["claims"]["index"]) == (
        "present",
        "ours",
        0,
    )
    for text, store in [
        (files[".txt"] + b" ", files[".c2pa"]),
        (files[".txt"], others[".c2pa"]),
        (files[".txt"], files[".c2pa"][:-9]),
        (files[".txt"], b"no manifest"),
        (files[".txt"], files[".c2pa"] + bytes(2 << 20)),
    ]:
        assert MARK.read_beside(text, store, keys()).state == "damaged"


def test_a_rotated_key_still_verifies(database, settings, keys, key):
    _, [old, *_] = sign("image", keys())
    new = rotate_key(database, settings, key)
    _, [late, *_] = sign("image", keys())
    said = [read(data, keys()) for data in (old, late)]
    assert [(each.state, each.says["key"], each.says["trust"]) for each in said] == [
        ("present", key, "ours"),
        ("present", new, "ours"),
    ]


def test_a_revoked_key_verifies_as_revoked(database, keys, key):
    _, [signed, *_] = sign("image", keys())
    revoke_key(database, key)
    found = read(signed, keys())
    assert (found.state, found.says["trust"], found.says["key"]) == ("damaged", "revoked", key)
    assert f"its key {key} was revoked on " in found.why
    assert "it was stolen" in found.why


def test_a_bundle_verifies_offline(database, keys, key):
    _, [signed, *_] = sign("image", keys())
    offline = parse_bundle(json.dumps(bundle(keys())).encode(), "trust.json")
    assert (read(signed, offline).state, read(signed, offline).says["key"]) == ("present", key)
    revoke_key(database, key)
    offline = parse_bundle(json.dumps(bundle(keys())).encode(), "trust.json")
    assert read(signed, offline).says["trust"] == "revoked"


def test_what_another_installation_signed_is_intact_and_not_ours(
    database, settings, keys, tmp_path
):
    _, [signed, *_] = sign("image", keys())
    stranger = parse_bundle(b'{"format": "genmill-trust-1", "keys": []}', "trust.json")
    found = read(signed, stranger)
    assert (found.state, found.says["trust"], found.says["key"]) == ("present", "untrusted", None)
    assert found.says["broken"] == []
    assert "signed by 'Example Ltd', not by a key of this installation" in found.why


def test_a_serial_number_alone_does_not_make_a_signature_ours(database, settings, keys, key):
    """A stranger may issue a certificate with any number."""
    _, [signed, *_] = sign("image", keys())
    ring = keys()
    copy = SimpleNamespace(anchors="", signing_key=ring.signing_key)
    found = read(signed, copy)
    assert (found.says["trust"], found.says["key"]) == ("untrusted", None)


def forged_by(authority, authority_key, serial):
    """A file signed by a certificate that a stolen authority gave this number."""
    issuer, stolen = read_certificates(authority)[0], read_private(authority_key)
    private = ec.generate_private_key(ec.SECP256R1())
    subject = certificates._subject("Example Ltd", "Example Ltd content signing")
    builder = certificates._builder(subject, issuer.subject, private.public_key(), 300)
    builder._serial_number = serial
    usages = x509.ExtendedKeyUsage([ExtendedKeyUsageOID.EMAIL_PROTECTION])
    for extension, critical in [
        (x509.BasicConstraints(ca=False, path_length=None), True),
        (certificates._usage(digital_signature=True), True),
        (usages, False),
    ]:
        builder = builder.add_extension(extension, critical=critical)
    signed = certificates._signed(builder, stolen)
    name = f"thief {serial}"  # of the library's context
    signer = certificates.Signer(name, "es256", signed, certificates.private_pem(private))
    claims = {"genmill.origin": {"model": "digits:9"}}
    [file] = make("image", 1)[1]
    return library.sign(name, lambda: signer, "image/png", claims, file, version="1")


def test_a_stolen_authority_cannot_use_the_number_of_another_ones_key(database, settings, keys):
    revoked, *_ = keys().all("authority")
    stolen = keys().secret_of(revoked.id)
    old, *_ = keys().all("signing")
    revoke_key(database, revoked.id)
    new = add_key(database, settings, "signing", name="Example Ltd")
    ring = keys()
    assert len(ring.all("authority")) == 2
    for key, trust in [(ring.get(new), "untrusted"), (ring.get(old.id), "revoked")]:
        found = read(forged_by(revoked.public, stolen, int(key.serial)), ring)
        assert found.says["trust"] == trust
    _, [signed, *_] = sign("image", ring)
    mark.forget_patterns()  # the library reads it
    found = read(signed, ring)
    assert (found.state, found.says["trust"], found.says["key"]) == ("present", "ours", new)


def test_many_files_are_signed_in_threads_each_with_its_own_number(keys):
    _, signed = sign("image", keys(), 40)
    numbers = [read(each, keys()).says["claims"]["index"] for each in signed]
    assert numbers == list(range(40))


@pytest.mark.filterwarnings("ignore:.*fork:DeprecationWarning")
def test_a_forked_process_signs_too(keys):
    ring = keys()
    sign("image", ring, 20)  # with threads and objects of the parent
    child = os.fork()
    if not child:
        try:
            _, signed = sign("image", ring, 20)
            os._exit(0 if read(signed[19], ring).says["trust"] == "ours" else 1)
        finally:
            os._exit(2)
    assert os.waitpid(child, 0)[1] == 0


def test_a_file_of_very_many_parts_is_read_no_further():
    with pytest.raises(library.Unreadable, match="too many parts"):
        library.read(b"GIF89a" + bytes(7) + b"\x21\xfe\1a\0" * 40_000 + b";", "image/gif", "")
