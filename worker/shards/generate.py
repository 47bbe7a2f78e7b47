"""A shard of a generate job: samples from the engine, streamed into one stored object."""

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import torch

from db.claims import Claim, NewMember
from db.errors import Refused, unknown
from db.tables import Job, ModelVersion
from worker.engine import memory
from worker.engine.generate import Generation, generate
from worker.feeds.source_images import SourceImages
from worker.media.record import Origin
from worker.media.writer import SampleRecord, Written, open_writer
from worker.shards.context import Bench, Made
from worker.shards.lease import Lease
from worker.shards.networks import Loaded
from worker.specs import Generate, parse_params

EXTENSIONS = {"application/x-tar": "tar", "application/jsonl": "jsonl"}


def generate_shard(bench: Bench, job: Job, spec: Generate, lease: Lease, folder: Path) -> Made:
    """Make the shard's samples in `folder` and store them; the caller commits what is returned."""
    version = bench.version(spec.model)
    with lease.excused():
        loaded = bench.load(version)
        generation = _generation(bench, spec, loaded, lease.claim)
    bench.networks.make_room(lambda: _require_memory(version, generation, bench.device))
    origin = _origin(bench, spec, version, generation, loaded)
    written = _write(job, generation, origin, lease, folder / "samples")
    name = f"samples-{lease.claim.idx:06d}.{EXTENSIONS[written.media_type]}"
    artifact = lease.put("samples", name, written.path, written.media_type)
    return Made([replace(artifact, members=[NewMember(**vars(m)) for m in written.members])])


def _generation(bench: Bench, spec: Generate, loaded: Loaded, claim: Claim) -> Generation:
    labels = loaded.network.shape.labels
    if spec.label is not None and spec.label not in labels:
        raise Refused(unknown("label", spec.label, labels))
    return Generation(
        loaded.network,
        parse_params(loaded.family.sampling, spec.params, what=loaded.family.name),
        seed=spec.seed,
        start=claim.start,
        stop=claim.stop,
        label=None if spec.label is None else labels.index(spec.label),
        prompts=tuple(spec.prompts),
        precision=bench.services.settings.precision,
        sources=_source_images(bench, spec, labels),
    )


def _require_memory(version: ModelVersion, generation: Generation, device: torch.device) -> None:
    """Refuse a micro-batch that cannot fit; a GPU's halves as it runs, so one row is enough."""
    rows = 1 if device.type == "cuda" else generation.sampling.micro_batch
    needed = rows * int(version.metrics.get("row_bytes", 0))
    memory.require(needed, device, what=f"making {rows} at once", remedy="set a lower micro_batch")


def _source_images(bench: Bench, spec: Generate, labels: Sequence[str]) -> SourceImages | None:
    """The images that samples start from, if the job names a dataset."""
    if spec.dataset is None:
        return None
    _, local = bench.dataset(spec.dataset)
    return SourceImages(local, labels)


def _origin(
    bench: Bench, spec: Generate, version: ModelVersion, generation: Generation, loaded: Loaded
) -> Origin:
    return Origin(
        family=loaded.family.name,
        model=spec.model,
        weights_sha256=version.weights_sha256,
        seed=spec.seed,
        sampling=generation.sampling.model_dump(mode="json"),
        micro_batch=generation.sampling.micro_batch,
        device=bench.device.type,
        precision=generation.precision,
        dataset=spec.dataset,
    )


def _write(job: Job, generation: Generation, origin: Origin, lease: Lease, path: Path) -> Written:
    """Samples into a file, encoded beside the model."""
    shape = generation.network.shape
    with open_writer(shape.media, path, sample_rate=shape.sample_rate) as writer:
        for sample in generate(generation, lease):
            record = replace(origin, micro_batch=sample.micro_batch).record(
                sample.index,
                label=sample.label,
                prompt=sample.prompt,
                custom_id=sample.custom_id or job.custom_id,
            )
            writer.add(SampleRecord(sample.index, sample.output, record))
        return writer.close()
