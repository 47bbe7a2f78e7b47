"""Generate jobs that keep fingerprints, committed as a worker does it, without torch."""

import hashlib
from collections.abc import Sequence
from pathlib import Path

from db import jobs, shards
from scheduler.submission.enqueue import enqueue
from tests.unit.scheduler.cli.conftest import MEDIA, safetensors
from worker.data.dataset import Shape
from worker.marks.apply import Marker
from worker.media import find_medium
from worker.media.fingerprints.bits import encode
from worker.media.samples.containers import Output, SampleRecord, Written
from worker.media.samples.record import Origin
from worker.services import Services
from worker.services.finalize import finalize, settle
from worker.services.fingerprints import describe_fingerprints
from worker.services.marking import marking_of
from worker.services.samples import store_index
from worker.specs import parse_recorded, parse_spec

SYLLABLES = [
    "ba", "ce", "di", "fo", "gu", "ha", "ki", "lo", "mu", "ne",
    "pa", "qui", "ra", "se", "ti", "vo", "wa", "xe", "yo", "zu",
]  # fmt: skip

WEIGHTS = hashlib.sha256(safetensors()).hexdigest()


def make_marked(
    services: Services,
    model: str,
    outputs: Sequence[Output],
    scratch: Path,
    *,
    marks: str = "none",
    shard_size: int = 2,
) -> str:
    """A succeeded job whose samples are these outputs, with the marks of a profile.

    In shards with their fingerprints, whatever the profile.
    """
    spec = {"kind": "generate", "model": model, "count": len(outputs), "seed": 7, "marks": marks}
    job = enqueue(services, parse_spec(spec), shard_size=shard_size)
    with services.database.read() as session:
        made = jobs.shards_of(session, job.id)
    for shard in made:
        _commit(services, shard.id, outputs, scratch)
    assert finalize(services, settle(services, [job.id]))
    return job.id


def _commit(services: Services, shard_id: str, outputs: Sequence[Output], scratch: Path) -> None:
    with services.database.write() as session:
        claim = shards.claim(session, shard_id, owner="0" * 36, lease_s=60)
        assert claim
        job = jobs.get(session, claim.job_id)
    medium, shape = find_medium(MEDIA[job.model]), _shape(MEDIA[job.model], outputs[0])
    named = (job.spec.get("marks") or {}).get("name")
    origin = Origin("family", job.spec["model"], WEIGHTS, 7, {}, 64, torch="0", marks=named)
    own = outputs[claim.start : claim.stop]
    samples = [
        SampleRecord(index, output, origin.shared())
        for index, output in enumerate(own, claim.start)
    ]
    marking = marking_of(services, parse_recorded(job.spec), shape)
    with medium.open_writer(scratch / "shard", shape) as writer:
        if marking:
            delivered, encoded = Marker(marking).mark(samples, shape)
        else:
            delivered, encoded = samples, medium.encode(samples, shape)
        writer.append(samples, encoded)
        written = writer.close()
    own = [sample.output for sample in delivered]
    rows = services.store.put_bytes(f"jobs/{job.id}/blobs", encode(medium.fingerprints(own, shape)))
    made = [_samples(services, claim, written), describe_fingerprints(claim.idx, medium, rows)]
    with services.database.write() as session:
        shards.commit(session, claim, made)


def _shape(media: str, output: Output) -> Shape:
    if media != "image":
        return Shape(media, sample_rate=8000)
    return Shape(media, size=output.shape[0], channels=output.shape[2])


def _samples(services: Services, claim: shards.Claim, written: Written) -> shards.NewArtifact:
    blob = services.store.put_bytes(f"jobs/{claim.job_id}/blobs", written.read())
    return shards.NewArtifact(
        kind="samples",
        name=f"samples-{claim.idx:06d}{written.extension}",
        key=blob.key,
        sha256=blob.sha256,
        size=blob.size,
        media_type=written.media_type,
        index=store_index(services.store, claim.job_id, written.index),
    )
