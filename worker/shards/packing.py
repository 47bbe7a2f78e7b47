"""Packing and storing samples beside the model: one thread encodes, others store what is finished.

Queues are bounded, so that a slow store makes the model wait and memory does not grow.
"""

import queue
import threading
import time
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import AbstractContextManager
from dataclasses import replace
from functools import lru_cache
from pathlib import Path
from types import TracebackType

from db import jobs
from db.commits import NewArtifact
from db.errors import contained
from worker.conversations import Conversation
from worker.data.dataset import Shape
from worker.engine.generate import Sample
from worker.files import inside
from worker.marks.apply import Marker
from worker.marks.base import Marking
from worker.media import find_medium
from worker.media.fingerprints.bits import encode
from worker.media.samples.containers import SampleRecord, Writer
from worker.media.samples.record import Origin, SharedRecord
from worker.shards.context import ShardResult
from worker.shards.lease import hang_checks_paused
from worker.shards.storing import Finished, Part, store_finished
from worker.store.base import ObjectStore
from worker.store.packs import PACK_BYTES

QUEUED_STEPS = 2  # of the network, which wait to be encoded
STORE_THREADS = 8  # most of the time of a small object is waiting for the disk or the network
QUEUED_OBJECTS = 2 * STORE_THREADS
SMALL_BYTES = 64 << 10  # a larger object is not put into a pack with others
TOGETHER = 512  # objects in a pack
PACK_EVERY_S = 1.0  # at most this long, finished objects wait for others
FINGERPRINT = "fingerprint"  # the mark


Made = tuple[Part, list[Sample] | Exception]
Result = tuple[Part, ShardResult | Exception]


class Packer:
    """Turns samples into stored objects: one for each part, or for many parts that are small."""

    def __init__(
        self,
        store: ObjectStore,
        shape: Shape,
        origins: Mapping[Part, Origin],
        folder: Path,
        marking: Marking | None = None,
    ) -> None:
        """The samples of all parts have one `shape` and one `marking`, if they are marked at all.

        Large objects are built in `folder`.
        """
        self._store, self._shape, self._folder = store, shape, folder
        self._medium, self._marking = find_medium(shape.media), marking
        self._open = {part: self._object(part, origin) for part, origin in origins.items()}
        self._unresolved = set(origins)
        self._stored_next: set[Part] = set()
        self._steps: queue.Queue[Sequence[Made] | None] = queue.Queue(QUEUED_STEPS)
        self._results: queue.SimpleQueue[Result] = queue.SimpleQueue()
        self._together = len(origins) > 1
        self._small: list[Finished] = []  # for the next pack
        self._small_bytes = 0
        self._pack_at = 0.0
        self._room = threading.Semaphore(QUEUED_OBJECTS)
        self._abandoned = threading.Event()
        self._pool = ThreadPoolExecutor(STORE_THREADS, thread_name_prefix="store")
        self._thread = threading.Thread(target=self._pack_queued, name="packer", daemon=True)
        self._thread.start()

    def open(self, part: Part, origin: Origin) -> None:
        """Begin a further part."""
        self._open[part] = self._object(part, origin)
        self._unresolved.add(part)

    def add(self, step: Sequence[Made]) -> None:
        """Queue samples, each part's in order; an exception ends its part. Waits for room."""
        if not step:
            return
        try:
            self._steps.put_nowait(step)
        except queue.Full:
            with self._waiting():
                self._steps.put(step)
        for part, made in step:  # no more progress is reported of what is only to be stored
            if isinstance(made, Exception) or made[-1].index + 1 == part.lease.claim.stop:
                self._stored_next.add(part)
                part.lease.pause_hang_check()

    def _object(self, part: Part, origin: Origin) -> "_Object":
        return _Object(part, origin, Marker(self._marking) if self._marking else None)

    def results(self) -> Iterator[Result]:
        """The results there are by now."""
        while not self._results.empty():
            part, result = self._results.get()
            self._unresolved.discard(part)
            if part in self._stored_next:
                self._stored_next.remove(part)
                part.lease.resume_hang_check()
            yield part, result

    def finish(self) -> Iterator[Result]:
        """Wait for all parts whose samples were all added, and yield their results."""
        with self._waiting():
            self._steps.put(None)
            self._thread.join()
            self._pool.shutdown()
        yield from self.results()

    def _waiting(self) -> AbstractContextManager[None]:
        """While the store keeps all waiting; it has timeouts of its own."""
        return hang_checks_paused(part.lease for part in self._unresolved)

    def __enter__(self) -> "Packer":
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._abandoned.set()
        if self._thread.is_alive():
            self._steps.put(None)
            self._thread.join()
        self._pool.shutdown(cancel_futures=True)
        for part in self._stored_next:
            part.lease.resume_hang_check()
        for each in self._open.values():
            each.discard()

    def _pack_queued(self) -> None:
        while (step := self._steps.get()) is not None:
            if not self._abandoned.is_set():
                self._pack(step)
                if self._small and time.monotonic() >= self._pack_at:
                    self._store_small()
        if not self._abandoned.is_set():
            self._store_small()

    def _pack(self, step: Sequence[Made]) -> None:
        """Encode what a step made, and hand finished objects to the pool."""
        batch: list[tuple[_Object, list[SampleRecord]]] = []
        for part, made in step:
            if (each := self._open.get(part)) is None:
                continue  # it has failed
            if isinstance(made, Exception):
                self._fail(each, made)
            else:
                batch.append((each, each.records(made)))
        if self._marking is None and batch:
            self._encode(batch)
        elif batch:  # each part counts its own marks
            for one in batch:
                self._encode([one])

    def _encode(self, batch: Sequence[tuple["_Object", list[SampleRecord]]]) -> None:
        samples: Sequence[SampleRecord] = [sample for _, some in batch for sample in some]
        try:
            if marker := batch[0][0].marker:
                samples, encoded = marker.mark(samples, self._shape)
            else:
                encoded = self._medium.encode(samples, self._shape)
        except BaseException as error:  # of native code too: this is a thread of its own
            if len(batch) == 1:
                self._fail(batch[0][0], contained(error))
            else:  # find the part at fault
                for one in batch:
                    self._encode([one])
            return
        start = 0
        for each, some in batch:
            stop = start + len(some)
            self._append(each, samples[start:stop], encoded[start:stop])
            start = stop

    def _append(
        self, each: "_Object", samples: Sequence[SampleRecord], encoded: Sequence[bytes]
    ) -> None:
        try:
            if each.writer is None:
                path = inside(self._folder, f"samples-{each.part.lease.claim.shard_id}")
                each.writer = self._medium.open_writer(path, self._shape)
            each.writer.append(samples, encoded)
            each.fingerprints += self._fingerprints(samples)
            if samples[-1].index + 1 == each.part.lease.claim.stop:
                written = each.writer.close()
                del self._open[each.part]
                marks = each.marker.data if each.marker else None
                finished = Finished(
                    each.part, written, marks, bytes(each.fingerprints), self._medium
                )
                self._finish_object(finished)
        except BaseException as error:
            self._fail(each, contained(error))

    def _fingerprints(self, samples: Sequence[SampleRecord]) -> bytes:
        """Those of samples as they are delivered, if their marks have them kept."""
        if self._marking is None or FINGERPRINT not in self._marking.profile.marks:
            return b""
        outputs = [sample.output for sample in samples]
        return encode(self._medium.fingerprints(outputs, self._shape))

    def _fail(self, each: "_Object", error: Exception) -> None:
        self._open.pop(each.part, None)
        each.discard()
        self._results.put((each.part, error))

    def _finish_object(self, finished: Finished) -> None:
        """Store an object, now or together with other small ones."""
        content = finished.written.content
        if not self._together or isinstance(content, Path) or len(content) > SMALL_BYTES:
            self._submit([finished])
            return
        if not self._small:
            self._pack_at = time.monotonic() + PACK_EVERY_S
        self._small.append(finished)
        self._small_bytes += len(content)
        if len(self._small) == TOGETHER or self._small_bytes >= PACK_BYTES:
            self._store_small()

    def _store_small(self) -> None:
        small, self._small, self._small_bytes = self._small, [], 0
        if small:
            self._submit(small)

    def _submit(self, finished: list[Finished]) -> None:
        self._room.acquire()
        self._pool.submit(self._store_finished, finished)

    def _store_finished(self, finished: list[Finished]) -> None:
        results: list[Result]
        try:
            stored = store_finished(self._store, finished)
            results = [(part, _result(part, artifacts)) for part, artifacts in stored]
        except BaseException as error:
            failure = contained(error)
            results = [(each.part, failure) for each in finished]
        finally:
            self._room.release()
        for each in finished:
            if isinstance(each.written.content, Path):
                each.written.content.unlink(missing_ok=True)
        for result in results:
            self._results.put(result)


def _result(part: Part, artifacts: list[NewArtifact]) -> ShardResult:
    claim, spec_hash = part.lease.claim, part.job.spec_hash
    ends = claim.alone and part.pinned.spec.accept is None  # an order may need more samples
    manifest = jobs.manifest_to_be(claim, spec_hash, artifacts) if ends else None
    return ShardResult(artifacts, manifest=manifest)


class _Object:
    """A part's object while it is packed."""

    def __init__(self, part: Part, origin: Origin, marker: Marker | None) -> None:
        self.part, self.marker = part, marker
        self.writer: Writer | None = None
        self.fingerprints = bytearray()
        self._origin = origin
        self._shared = lru_cache(maxsize=256)(self._make_shared)

    def records(self, samples: Sequence[Sample]) -> list[SampleRecord]:
        """The samples with what their records share."""
        return [
            SampleRecord(
                each.index,
                each.output,
                self._shared(each.label, each.prompt, each.custom_id, each.micro_batch),
            )
            for each in samples
        ]

    def discard(self) -> None:
        if self.writer is not None:
            self.writer.discard()

    def _make_shared(
        self,
        label: str | None,
        prompt: str | Conversation | None,
        custom_id: str | None,
        micro_batch: int,
    ) -> SharedRecord:
        origin = self._origin
        if micro_batch != origin.micro_batch:
            origin = replace(origin, micro_batch=micro_batch)
        custom_id = custom_id or self.part.job.custom_id
        return origin.shared(label=label, prompt=prompt, custom_id=custom_id)
