"""Proofs that strangers verify, and audits that find what was changed behind the ledger's back."""

import base64
import hashlib
import json
import re
import shlex
import shutil
import sqlite3
import subprocess
import sys
from contextlib import closing
from datetime import timedelta
from pathlib import Path

import pytest
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from sqlalchemy import select, text

from db import audit_trail, ledger, setbacks
from db.errors import BadRecord
from db.leaves import MANIFEST, head_text, leaf_text, row_data
from db.merkle import leaf_hash
from db.tables import Job, Key, LedgerHead, LedgerLeaf, Promotion
from scheduler.audit.auditor import Auditor
from scheduler.dispatch.rounds import run_round
from scheduler.submission.enqueue import enqueue
from tests.evaluations import add_version
from tests.proofs import SCRIPT, verify_proof
from worker.services.ledger import sign_head, write_ledger
from worker.specs import parse_spec

from .conftest import commit_job, make_samples

# runs the script in a process that cannot import Genmill
ALONE = (
    "import runpy, sys; sys.modules.update(dict.fromkeys(('db', 'worker', 'scheduler'))); "
    f"sys.argv[0] = 'verify_proof.py'; runpy.run_path({str(SCRIPT)!r}, run_name='__main__')"
)


@pytest.fixture
def database_url(sqlite_url) -> str:
    """What changes rows below is SQLite's SQL."""
    return sqlite_url


def verify(*words: object) -> tuple[int, str]:
    """The exit code of the script in this process, and why a proof does not hold."""
    proof, *files = map(str, words)
    document = json.loads(Path(proof).read_text())
    try:
        list(verify_proof.verify_proof(document, []))
        known = verify_proof.known_digests(document)
        for file in files:
            verify_proof.verify_file(Path(file), known, document["job"])
    except verify_proof.NotProvenError as error:
        return 1, str(error)
    return 0, ""


def run_alone(*words: object) -> subprocess.CompletedProcess[str]:
    """Run the script as a stranger does."""
    command = [sys.executable, "-I", "-c", ALONE, *map(str, words)]
    return subprocess.run(command, capture_output=True, text=True, check=False)


@pytest.fixture
def proven(genmill, picture_job) -> Path:
    """The proof of a job of five pictures, and the pictures in the folder `out`."""
    assert genmill("artifact", "download", picture_job, "-o", "out").code == 0
    done = genmill("provenance", "proof", picture_job, "--out", "proof.json")
    assert (done.code, done.out) == (0, "proof.json\n"), done.err
    return Path("proof.json")


def pictures() -> list[Path]:
    return sorted(Path("out").rglob("*.png"))


def keep_head(genmill) -> str:
    """Keep the newest head outside; the file."""
    done = genmill("provenance", "audit", "--out", "head.json")
    assert done.code == 0, done.out
    return "head.json"


def test_a_stranger_verifies_a_downloaded_sample_without_genmill(proven, picture_job):
    files = pictures()
    key = Path("key.pem")
    key.write_text(json.loads(proven.read_text())["head"]["public_key"])
    done = run_alone(proven, *files, "--key", key)
    assert (done.returncode, done.stderr) == (0, "")
    assert f"ok: {files[4]}: sample 4 of job {picture_job}" in done.stdout
    assert len(files) == 5
    changed = bytearray(files[4].read_bytes())
    changed[60] ^= 1
    files[4].write_bytes(changed)
    done = run_alone(proven, *files)
    assert done.returncode == 1
    assert f"NOT PROVEN: {files[4]} is nothing that the proof knows of" in done.stderr


def test_the_script_is_short_and_depends_on_cryptography_alone():
    lines = SCRIPT.read_text().splitlines()
    assert len(lines) < 200
    imported = {line.split()[1].split(".")[0] for line in lines if line.startswith(("im", "from "))}
    assert imported - set(sys.stdlib_module_names) == {"cryptography"}


def forge(proof: dict, what: str) -> None:
    """Change something in a proof."""
    manifest = json.loads(proof["manifest"])
    head = proof["head"]
    if what == "a digest":
        proof["members"][0]["digests"][0] = "0" * 64
    elif what == "the manifest":
        manifest["artifacts"][0]["sha256"] = "0" * 64
        proof["manifest"] = json.dumps(manifest)
    elif what == "the leaf":
        proof["manifest"] = "{}"
        leaf = json.loads(proof["leaf"]["text"])
        leaf["data"]["manifest_sha256"] = hashlib.sha256(b"{}").hexdigest()
        proof["leaf"]["text"] = json.dumps(leaf)
    elif what == "the size":
        head["text"] = head["text"].replace("\n", "\n1", 1)
    elif what == "the path":
        proof["inclusion"].append("0" * 64)
    else:
        key = Ed25519PrivateKey.generate()
        head["signature"] = base64.b64encode(key.sign(head["text"].encode())).decode()


FORGED = {
    "a digest": "are not those that the manifest sums up",
    "the manifest": "the manifest is not the one in the ledger",
    "the leaf": "the leaf is not in the tree that was signed",
    "the size": "not signed by",
    "the path": "the path is too long",
    "the signature": "not signed by",
}


def test_a_proof_in_which_anything_was_changed_does_not_hold(proven):
    whole = proven.read_text()
    for what, why in FORGED.items():
        proof = json.loads(whole)
        forge(proof, what)
        proven.write_text(json.dumps(proof))
        code, told = verify(proven)
        assert (code, why in told) == (1, True), (what, told)
    other = Ed25519PrivateKey.generate().public_key()
    pem = other.public_bytes(
        serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo
    )
    with pytest.raises(verify_proof.NotProvenError, match="the key that you gave"):
        list(verify_proof.verify_proof(json.loads(whole), [pem]))


def signed_by(private: Ed25519PrivateKey, head: dict, **changes: str) -> dict:
    """A head signed by another key, with other texts in it."""
    text = head["text"]
    for old, new in changes.items():
        text = text.replace(old, new)
    pem = private.public_key().public_bytes(
        serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo
    )
    signature = base64.b64encode(private.sign(text.encode())).decode()
    return head | {"text": text, "public_key": pem.decode(), "signature": signature}


@pytest.mark.parametrize("content", ["", "\n", "no key"])
def test_a_file_without_a_key_accepts_no_proof(proven, content):
    Path("key.pem").write_text(content)
    done = run_alone(proven, "--key", "key.pem")
    assert (done.returncode, done.stdout) == (1, "")
    assert "a key that you gave, or that of a head, is no public key as PEM" in done.stderr


def test_an_older_head_is_signed_by_a_key_that_was_given_and_of_the_same_ledger(proven):
    proof, thief = json.loads(proven.read_text()), Ed25519PrivateKey.generate()
    true, consistency = [proof["head"]["public_key"].encode()], []
    forged = signed_by(thief, proof["head"])

    def told_of(head: dict, keys: list[bytes]) -> str:
        proof["older"] = {"head": head, "consistency": consistency}
        try:
            return list(verify_proof.verify_proof(proof, keys))[-1]
        except verify_proof.NotProvenError as error:
            return str(error)

    assert told_of(proof["head"], true).endswith("its leaves are still the first ones")
    assert "not signed by the key that you gave" in told_of(forged, true)
    both = [*true, forged["public_key"].encode()]  # the key was replaced in between
    assert told_of(forged, both).endswith("its leaves are still the first ones")
    another = signed_by(thief, proof["head"], genmill="another")
    assert told_of(another, both) == "the older head is another ledger's"
    assert told_of(another, []) == "the older head is another ledger's"


def test_the_proof_of_an_artifact_holds_its_samples_alone(genmill, picture_job):
    first, *_ = genmill("artifact", "list", picture_job, "--json").json
    proof = genmill("provenance", "proof", first["id"]).json
    assert [len(each["digests"]) for each in proof["members"]] == [2]
    brief = genmill("provenance", "proof", picture_job, "--out", "p.json", "--json").json
    assert brief["leaf"] == 2  # after the model and its version
    assert genmill("provenance", "proof", first["id"], "--json", "job").json == {"job": picture_job}


def test_lines_of_a_text_job_are_samples(genmill, text_job):
    genmill("artifact", "download", text_job, "-o", "out", "--as", "jsonl")
    genmill("provenance", "proof", text_job, "--out", "proof.json")
    [lines] = Path("out").rglob("*.jsonl")
    assert verify("proof.json", lines) == (0, "")
    lines.write_text(lines.read_text().replace("0", "1", 1))
    assert "line 1 of" in verify("proof.json", lines)[1]


def test_a_proof_with_an_older_head_shows_that_the_ledger_only_grew(
    genmill, services, proven, prose, tmp_path
):
    make_samples(services, prose, 1, tmp_path)
    newer = make_samples(services, prose, 2, tmp_path)
    done = genmill("provenance", "proof", newer, "--head", proven, "--out", "newer.json")
    assert done.code == 0, done.err
    assert verify("newer.json") == (0, "")
    proof = json.loads(Path("newer.json").read_text())
    assert run_alone("newer.json").stdout.count("its leaves are still the first ones") == 1
    proof["older"]["consistency"].reverse()
    Path("newer.json").write_text(json.dumps(proof))
    size = int(proof["head"]["text"].split("\n")[1])
    assert size > 1
    if len(proof["older"]["consistency"]) > 1:
        assert "does not go on" in verify("newer.json")[1]


def test_what_has_no_proof_says_why(genmill, services, prose):
    job = genmill("enqueue", "generate", "prose", "--count", "1").out.strip()
    done = genmill("provenance", "proof", job)
    assert (done.code, "only succeeded ones have a manifest" in done.err) == (2, True)
    done = genmill("provenance", "proof", "0123")
    assert (done.code, "no artifact or job '0123'" in done.err) == (4, True)
    Path("head.json").write_text('{"head": {"text": "a", "signature": ""}}')
    done = genmill("provenance", "audit", "--head", "head.json")
    assert (done.code, "holds no head of a ledger" in done.err) == (2, True)


def test_a_round_of_the_scheduler_appends_and_signs(services, picture_job, genmill, monkeypatch):
    monkeypatch.setattr(ledger.is_behind, "__kwdefaults__", {"lag": -timedelta(seconds=1)})
    monkeypatch.setitem(ledger.extend.__kwdefaults__, "lag", -timedelta(seconds=1))
    assert run_round(services).leaves == 3  # the model, its version, what it made
    with services.database.read() as session:
        assert ledger.newest_head(session).size == 3
    run_round(services)  # the key that signed it is told, too, and that it was made
    with services.database.read() as session:
        assert ledger.current(session).size == 5
        assert ledger.newest_head(session).size == 3  # one a minute
    assert genmill("provenance", "audit").code == 0


@pytest.fixture
def kept(genmill, services, picture_job, prose, tmp_path) -> None:
    """A ledger of several jobs and acts, whole, with its head kept outside."""
    for _ in range(2):
        add_version(services, "glyphs")
    genmill("model", "alias", "glyphs:2", "--as", "champion", "--why", "sharper")
    jobs = [make_samples(services, prose, 1, tmp_path) for _ in range(3)]
    genmill("job", "remove", jobs[0], "--yes")
    for job in [picture_job, *jobs[1:]]:
        assert genmill("provenance", "proof", job).code == 0
    write_ledger(services)
    sign_head(services)
    keep_head(genmill)
    done = genmill("provenance", "audit", "--head", "head.json")
    assert done.code == 0, done.out
    assert "no violation; " in done.err
    told = genmill("provenance", "audit", "--json").json
    assert (told["ok"], told["violations"]) == (True, [])
    assert told["head"] == json.loads(Path("head.json").read_text())


def tamper(services, statement: str, **values: object) -> None:
    with services.database.write() as session:
        assert session.execute(text(statement), values).rowcount


CHANGES = {
    "UPDATE promotions SET why = 'because'": 'why was "sharper"',
    "DELETE FROM promotions": "is in the ledger, and its row is gone",
    "UPDATE tombstones SET who = 'nobody' WHERE kind = 'job'": "was changed since it was recorded",
    "DELETE FROM tombstones WHERE kind = 'job'": "is in the ledger, and its row is gone",
    "UPDATE audit_entries SET who = 'bob' WHERE action = 'removed'": "who was ",
    "DELETE FROM audit_entries": "is in the ledger, and its row is gone",
    "INSERT INTO audit_entries (id, at, who, action, subject) "
    "SELECT X'00', at, who, action, subject FROM audit_entries LIMIT 1": "and not in the ledger",
    "UPDATE keys SET public = 'none' WHERE purpose = 'head'": "public was",
    "UPDATE jobs SET manifest_sha256 = X'00' WHERE kind = 'generate'": "manifest_sha256 was",
    "UPDATE jobs SET spec = '{}'": "differs from its digest",
    "UPDATE jobs SET spec = '{}', prompts_sha256 = zeroblob(32)": "differs from its digest",
    "UPDATE jobs SET manifest_pack = 5": "is missing or differs from its digest",
    "UPDATE jobs SET spec = '5'": ", or one of its artifacts, was changed: the record holds 5",
    "UPDATE artifacts SET sha256 = X'00'": "does not list its artifacts",
    "UPDATE artifacts SET name = X'00'": ", or one of its artifacts, was changed: the record holds",
    "UPDATE ledger_leaves SET text = replace(text, 'sharper', 'duller')": "was edited: its hash",
    "UPDATE ledger_leaves SET subject = X'00' WHERE idx = 2": "was edited: its hash",
    "DELETE FROM ledger_leaves WHERE idx = 3": "leaves 3 to 3 of the ledger are missing",
    "UPDATE ledger_leaves SET idx = -1 WHERE idx = 3": "place below 0, so not in it: 1",
    "UPDATE ledger_leaves SET idx = 1 << 60 WHERE idx = 3": "over a million are missing",
    "UPDATE ledger_nodes SET hash = X'00' WHERE level = 1 AND number = 1": "hash of leaves 2 to 3",
    "DELETE FROM ledger_nodes WHERE level = 2": "hash of leaves 0 to 3 is missing",
    "UPDATE ledger_heads SET root = zeroblob(32)": "have another root, so one of them was changed",
    "UPDATE ledger_heads SET key_id = 'key_0'": "which is no key for heads on record",
    "UPDATE ledger_heads SET at = 'soon'": "leaves was changed: the record holds 'soon'",
    "UPDATE ledger SET size = size + 1": "and says that it has",
    "UPDATE ledger SET size = 'soon'": "and what comes after that was not checked",
}


@pytest.mark.usefixtures("kept")
def test_every_change_behind_the_ledgers_back_is_named(genmill, services, home):
    missed = {}
    with (
        closing(sqlite3.connect(home / "genmill.db")) as record,
        closing(sqlite3.connect(":memory:")) as whole,
    ):
        record.backup(whole)
        for statement, told in CHANGES.items():
            tamper(services, statement)
            found = "\n".join(map(str, Auditor(services).ledger_violations()))
            if told not in found:
                missed[statement] = found
            whole.backup(record)
    assert missed == {}
    assert genmill("doctor", "--audit").code == 0
    tamper(services, next(iter(CHANGES)))
    assert next(iter(CHANGES.values())) in genmill("doctor", "--audit").out


@pytest.mark.usefixtures("kept")
def test_a_column_of_another_type_hides_no_other_change(genmill, services):
    tamper(services, "UPDATE promotions SET verdict = 5")
    tamper(services, "UPDATE audit_entries SET who = 'bob' WHERE action = 'removed'")
    tamper(services, "UPDATE tombstones SET at = 'soon' WHERE kind = 'job'")
    tamper(services, "UPDATE ledger SET size = 'soon'")
    tamper(services, "UPDATE jobs SET spec = '{}'")
    newest = "SELECT max(id) FROM jobs WHERE kind = 'generate'"
    tamper(services, f"UPDATE jobs SET spec = '5' WHERE id = ({newest})")
    done = genmill("provenance", "audit")
    assert (done.code, "Traceback" in done.err) == (1, False)
    assert done.out.count("differs from its digest") == 2, done.out
    assert done.out.count("was changed: the record holds 5") == 1
    told = re.findall(r"(\w+) \S+ was changed since it was recorded", done.out)
    assert sorted(told) == ["audit", "promotion", "removal"], done.out


@pytest.mark.usefixtures("kept")
def test_text_that_is_no_utf_8_hides_no_other_change(genmill, services):
    with services.database.read() as session:
        if session.get_bind().dialect.name != "sqlite":
            pytest.skip("PostgreSQL stores no such text")
    newest = "SELECT max(id) FROM artifacts"
    tamper(services, f"UPDATE artifacts SET name = CAST(X'ff' AS TEXT) WHERE id = ({newest})")
    tamper(services, "UPDATE audit_entries SET who = 'bob' WHERE action = 'removed'")
    done = genmill("provenance", "audit")
    why = "was changed: the record holds no UTF-8 text in the column 'name'"
    assert f", or one of its artifacts, {why}" in done.out
    assert done.out.count('was changed since it was recorded: who was "') == 1


@pytest.mark.usefixtures("kept")
def test_a_long_value_is_shown_as_cut(genmill, services):
    done = genmill("model", "alias", "glyphs:1", "--as", "champion", "--why", "x" * 90)
    assert done.code == 0
    tamper(services, "UPDATE promotions SET why = 'because'")
    told = genmill("provenance", "audit").out
    assert f'why was "{"x" * 79}…' in told


@pytest.mark.usefixtures("kept")
def test_a_leaf_that_cannot_be_read_is_no_cut(genmill, services):
    tamper(services, "UPDATE ledger_leaves SET kind = X'00' WHERE idx = 3")
    found = genmill("provenance", "audit", "--head", "head.json").out
    assert "and what comes after that was not checked" in found
    assert "was cut" not in found


@pytest.mark.usefixtures("kept")
@pytest.mark.parametrize(
    ("edit", "told"),
    [
        ("UPDATE jobs SET finished_at = NULL", "went finalizing -> succeeded at None"),
        ("UPDATE shards SET started_at = NULL", "went queued -> running at None"),
        ("UPDATE shards SET report = '5'", "the record holds 5 where"),
    ],
)
def test_an_edited_time_or_report_does_not_stop_the_whole_audit(genmill, services, edit, told):
    tamper(services, edit)
    tamper(services, "UPDATE promotions SET why = 'duller'")
    tamper(services, "UPDATE artifacts SET sha256 = zeroblob(32)")
    found = "\n".join(map(str, Auditor(services).violations()))
    assert told in found
    assert 'why was "sharper"' in found
    assert "does not list its artifacts" in found


@pytest.mark.usefixtures("kept")
def test_a_leaf_that_was_edited_with_its_hash_is_found_in_the_tree(genmill, services):
    def edit(session):
        leaf = session.scalars(select(LedgerLeaf).where(LedgerLeaf.idx == 1)).one()
        leaf.text = leaf_text(leaf.kind, leaf.subject, {"manifest_sha256": "0" * 64})
        leaf.leaf_hash = leaf_hash(leaf.text.encode()).hex()

    services.database.transact(edit)
    assert "the ledger's hash of leaves 0 to 1 is not" in genmill("provenance", "audit").out


@pytest.mark.usefixtures("kept")
def test_one_more_leaf_does_not_cover_up_a_changed_row(genmill, services, picture_job):
    def cover_up(session):
        job, key = session.get_one(Job, picture_job), session.scalars(select(Key)).first()
        promotion = session.scalars(select(Promotion)).first()
        job.manifest_sha256, key.public, promotion.why = "0" * 64, "none", "because"
        session.flush()
        for kind, row in ("manifest", job), ("key", key), ("promotion", promotion):
            ledger.enter(session, kind, row)

    services.database.transact(cover_up)
    write_ledger(services)
    sign_head(services)
    found = genmill("provenance", "audit", "--head", "head.json").out
    for kind in "manifest", "key", "promotion":
        assert f"a later leaf takes back what the ledger tells of {kind} " in found
    assert 'why was "sharper"' in found
    with services.database.read() as session:  # a proof is by the first one
        assert "0" * 64 not in ledger.leaf_of(session, "manifest", picture_job).text


def test_the_spec_of_a_job_with_long_prompts_is_checked_with_them(
    genmill, services, prose, tmp_path
):
    asked = {"kind": "generate", "model": prose, "count": 1, "prompts": [{"prompt": "x" * 5000}]}
    job = enqueue(services, parse_spec(asked), shard_size=2)
    commit_job(services, job.id, tmp_path)
    assert genmill("provenance", "audit").code == 0
    edit = "UPDATE jobs SET spec = json_set(spec, '$.seed', 8) WHERE prompts_sha256 IS NOT NULL"
    tamper(services, edit)
    found = genmill("provenance", "audit").out
    assert f"the spec of job {job.id} differs from its digest" in found


@pytest.mark.usefixtures("kept")
def test_a_manifest_that_was_replaced_with_its_digest_on_record_is_found(
    genmill, services, picture_job
):
    with services.database.read() as session:
        job = session.get_one(Job, picture_job)
    with services.store.open(job.manifest_key) as file:
        other = json.loads(file.read())
    other["artifacts"].pop()
    data = json.dumps(other).encode()
    services.store.delete(job.manifest_key)
    services.store.put_as(job.manifest_key, data)
    assert "is missing or differs from its digest" in genmill("provenance", "audit").out
    digest = bytes.fromhex(hashlib.sha256(data).hexdigest())
    tamper(services, "UPDATE jobs SET manifest_sha256 = :d WHERE manifest_key = :k",
           d=digest, k=job.manifest_key)  # fmt: skip
    found = genmill("provenance", "audit").out
    assert f"manifest {picture_job} was changed since it was recorded" in found
    done = genmill("provenance", "proof", picture_job)
    assert (done.code, "the ledger has another manifest" in done.err) == (1, True)


def resign(services, private: Ed25519PrivateKey) -> None:
    """Sign every head with another key."""

    def work(session):
        log = ledger.current(session)
        for head in session.scalars(select(LedgerHead)):
            told = head_text(log.id, head.size, bytes.fromhex(head.root), head.at)
            head.signature = private.sign(told.encode())

    services.database.transact(work)


@pytest.mark.usefixtures("kept")
def test_a_head_that_was_signed_again_with_another_key_is_found(genmill, services):
    private = Ed25519PrivateKey.generate()
    resign(services, private)
    found = genmill("provenance", "audit").out
    assert "it was changed, or signed with another key" in found
    pem = private.public_key().public_bytes(
        serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo
    )
    tamper(services, "UPDATE keys SET public = :pem WHERE purpose = 'head'", pem=pem.decode())
    found = genmill("provenance", "audit").out
    assert "signed with another key" not in found
    assert "public was" in found  # by the key's own leaf
    found = genmill("provenance", "audit", "--head", "head.json").out
    assert "than the one on record" in found


@pytest.mark.usefixtures("kept")
def test_only_a_head_that_was_kept_outside_shows_that_the_end_was_cut_off(genmill, services):
    def cut(session):
        size = ledger.current(session).size
        last = session.scalars(select(LedgerLeaf).where(LedgerLeaf.idx == size - 1)).one()
        if last.kind == "audit":
            session.execute(
                text("DELETE FROM audit_entries WHERE id = :id"),
                {"id": bytes.fromhex(last.subject.replace("-", ""))},
            )
        session.delete(last)
        ledger.current(session).size = size - 1
        session.execute(text(
            "DELETE FROM ledger_nodes WHERE (number + 1) * (1 << level) > :n"), {"n": size - 1}
        )  # fmt: skip
        session.execute(text("DELETE FROM ledger_heads WHERE size >= :n"), {"n": size})
        return size, last.kind

    with services.database.write() as session:  # the newest leaf is an entry of the trail
        audit_trail.note(session, "ann", "published", "glyphs:2")
    write_ledger(services)
    sign_head(services)
    keep_head(genmill)
    size, kind = services.database.transact(cut)
    assert kind == "audit"
    assert genmill("provenance", "audit").code == 0
    done = genmill("provenance", "audit", "--head", "head.json")
    assert done.code == 1
    assert f"the ledger was cut to {size - 1} leaves" in done.out
    assert genmill("doctor", "--audit").code == 0
    done = genmill("doctor", "--audit", "--head", "head.json")
    assert (done.code, f"the ledger was cut to {size - 1} leaves" in done.out) == (1, True)


@pytest.mark.parametrize("cut", [1, "all"])
def test_a_ledger_that_was_cut_is_not_signed_again(
    services, genmill, picture_job, monkeypatch, cut
):
    def shorten(session):
        size = ledger.current(session).size
        left = size - cut if cut != "all" else 0
        ledger.current(session).size = left
        session.execute(text("DELETE FROM ledger_leaves WHERE idx >= :n"), {"n": left})
        gone = "DELETE FROM ledger_nodes WHERE (number + 1) * (1 << level) > :n"
        session.execute(text(gone), {"n": left})
        return size

    assert genmill("provenance", "proof", picture_job).code == 0
    write_ledger(services)
    sign_head(services)
    size = services.database.transact(shorten)
    monkeypatch.setattr("worker.services.ledger.HEAD_EVERY", timedelta(0))
    counts = run_round(services)
    assert (counts.leaves, counts.reaped) == (0, 0)  # the other steps ran
    with services.database.read() as session:
        told = setbacks.known(session, "the scheduler's round")["writing the ledger"].error
    assert f"and {size} of it were signed" in told
    for _ in range(3):  # more leaves than before
        with services.database.write() as session:
            audit_trail.note(session, "ann", "published", "glyphs:2")
    services.database.transact(ledger.extend)
    with pytest.raises(BadRecord, match=r"are not those that were signed|were signed"):
        sign_head(services)
    with services.database.read() as session:
        assert ledger.newest_head(session).size == size


@pytest.mark.slow
@pytest.mark.usefixtures("kept")
def test_a_restored_ledger_is_whole_and_goes_on(genmill, prose, services, home, monkeypatch):
    assert genmill("backup", "copy").code == 0
    shutil.copytree(home / "keys", "keys")
    services.close()
    shutil.rmtree(home)
    assert genmill("restore", "copy").code == 0
    shutil.copytree("keys", home / "keys", dirs_exist_ok=True)
    done = genmill("provenance", "audit", "--head", "head.json")
    assert done.code == 0, done.out
    [job, *_] = genmill("job", "list", "--quiet").out.splitlines()
    done = genmill("provenance", "proof", job, "--head", "head.json", "--out", "p.json")
    assert done.code == 0, done.err
    assert verify("p.json") == (0, "")


def test_the_audit_trail_is_listed_and_searched(genmill, services, prose, tmp_path):
    add_version(services)
    genmill(*shlex.split("model alias digits:1 --as champion --why 'the first'"))
    job = make_samples(services, prose, 1, tmp_path)
    genmill("job", "remove", job, "--yes")
    newest, oldest = genmill("audit", "--json").json
    assert (newest["action"], newest["subject"], newest["detail"]) == (
        "removed",
        job,
        {"kind": "job"},
    )
    assert (oldest["action"], oldest["subject"]) == ("alias set", "digits:1")
    assert "alias champion, why the first" in genmill("audit", "--since", "1h").out
    assert genmill("audit", "--action", "removed", "-q").out == newest["id"] + "\n"
    assert genmill("audit", "--subject", "digits:9", "--json").json == []


def test_the_leaf_of_a_manifest_says_nothing_but_its_digest(services, picture_job):
    with services.database.read() as session:
        job = session.get_one(Job, picture_job)
    assert row_data(MANIFEST, job) == {"manifest_sha256": job.manifest_sha256}
