"""Celery's way to Redis and back, for a broker that is not trusted.

Of a message, nothing is used but the shard's id: what Celery is handed is made anew from it, and a
message without one is dropped. Redis forgets a message as it is read, so none that cannot be
understood comes back. A doorbell that is lost with its reader is rung again after the deadline.

Only one key is used, a list. Whoever can write to Redis may delay doorbells, and no more.
"""

import base64
import json
import logging
import time
from contextlib import suppress
from queue import Empty
from typing import Any
from uuid import UUID, uuid4

from kombu.transport import redis
from redis.exceptions import ResponseError

from worker.broker.app import QUEUE, TASK

log = logging.getLogger(__name__)

MAX_BYTES = 8192  # ours have less than a thousand
LOG_EVERY_S = 10.0


def shard_id_in(message: bytes) -> str | None:
    """The shard's id that a doorbell carries; None for anything else."""
    if len(message) > MAX_BYTES:
        return None
    with suppress(Exception):  # whatever it is, it is not a doorbell
        arguments, *_ = json.loads(base64.b64decode(json.loads(message)["body"]))
        (shard_id,) = arguments
        return shard_id if str(UUID(shard_id)) == shard_id else None
    return None


def doorbell(shard_id: str) -> dict[str, Any]:
    """The message that Celery is handed: its task with one argument, and no options at all."""
    tag = str(uuid4())
    return {
        "body": base64.b64encode(json.dumps([[shard_id], {}, {}]).encode()).decode(),
        "content-type": "application/json",
        "content-encoding": "utf-8",
        "headers": {"lang": "py", "task": TASK, "id": tag},
        "properties": {
            "correlation_id": tag,
            "delivery_tag": tag,
            "delivery_info": {"exchange": "", "routing_key": QUEUE},
            "body_encoding": "base64",
        },
    }


class Channel(redis.Channel):
    """Kombu's channel, without the keys in which it keeps what is being worked on."""

    heard_at = float("-inf")  # when this process last read a message, by the monotonic clock
    ack_emulation = False
    _dropped = 0
    _logged_at = float("-inf")

    def _brpop_read(self, **options: Any) -> bool:
        found: Any = None
        try:
            found = self.client.parse_response(self.client.connection, "BRPOP", **options)
        except self.connection_errors:
            self.client.connection.disconnect()  # the next turn of the loop connects again
            raise
        except ResponseError as error:
            self._remove_unless_list(error)
        finally:
            self._in_poll = None  # type: ignore[assignment] # as the base class does
        if not found:
            raise Empty
        Channel.heard_at = time.monotonic()
        _, message = found
        shard_id = shard_id_in(message)
        if shard_id is None:
            self._note_dropped(message)
            raise Empty
        self.connection._deliver(doorbell(shard_id), QUEUE)
        return True

    def _put(self, queue: str, message: dict[str, Any], **options: Any) -> None:
        put: Any = super()._put
        try:
            put(queue, message, **options)
        except ResponseError as error:
            self._remove_unless_list(error)
            put(queue, message, **options)

    def _size(self, queue: str) -> int:
        size: Any = super()._size
        try:
            return int(size(queue))
        except ResponseError as error:
            self._remove_unless_list(error)
            return 0

    def _queue_bind(self, *_: Any) -> None:
        """Nothing: messages go to the queue by its name, without a table in Redis."""

    def basic_reject(self, delivery_tag: str, requeue: bool = False) -> None:
        """Put a doorbell back; does nothing if it was when the channel was closed."""
        reject: Any = super().basic_reject
        with suppress(KeyError):
            reject(delivery_tag, requeue=requeue)

    def _restore(self, message: Any, leftmost: bool = False) -> None:
        """Put back a doorbell that this worker leaves to others. Best effort."""
        try:
            self._put(QUEUE, doorbell(message.payload[0][0]))
        except Exception as error:
            log.warning("a doorbell is lost: %s", error)

    def _remove_unless_list(self, error: ResponseError) -> None:
        """Remove what somebody else has put where the queue should be; raises any other error."""
        if "WRONGTYPE" not in str(error):
            raise error
        log.warning("what was in place of the queue is removed: it is not a list")
        with self.conn_or_acquire() as client:
            client.delete(QUEUE)

    def _note_dropped(self, message: bytes) -> None:
        self._dropped += 1
        if time.monotonic() - self._logged_at >= LOG_EVERY_S:
            start = message[:80]
            log.warning("dropped what is no doorbell: %d, the last begins %r", self._dropped, start)
            self._dropped, self._logged_at = 0, time.monotonic()


class Transport(redis.Transport):
    """Kombu's transport with our channel."""

    Channel = Channel
