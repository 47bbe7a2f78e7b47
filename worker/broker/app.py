"""The Celery app of senders and workers. Knows no task's code and no torch.

The broker is a doorbell: a message carries a shard's id and may be lost, duplicated or late; the
database decides what happens. Hence no results, no retries by Celery and no ETA.
"""

from functools import cache
from typing import Any

from celery import Celery
from kombu.transport import TRANSPORT_ALIASES

from worker.redis_address import RedisAddress
from worker.settings import Settings

QUEUE = "genmill"
TASK = "genmill.work"
KEY_PREFIX = "genmill:"

# in place of kombu's; as a name, because importing it takes time that few commands need
TRANSPORT_ALIASES |= dict.fromkeys(("redis", "rediss"), "worker.broker.channel:Transport")

_SETTINGS: dict[str, Any] = {
    "task_serializer": "json",
    "accept_content": ["json"],
    "task_ignore_result": True,
    "result_backend": None,
    # Redis has forgotten a message once it is read, so this only keeps a worker that is busy from
    # reading the next one
    "task_acks_late": True,
    # a shard that kills its worker must not come back uncounted (measured: six times in twelve
    # seconds); it is queued again and counted
    "task_reject_on_worker_lost": False,
    "task_acks_on_failure": True,
    "task_acks_on_timeout": True,
    "task_default_queue": QUEUE,
    "task_create_missing_queues": False,
    "task_publish_retry_policy": {
        "max_retries": 2,
        "interval_start": 0,
        "interval_step": 0.2,
        "interval_max": 0.5,
    },
    "worker_concurrency": 1,
    "worker_prefetch_multiplier": 1,
    # importing torch in a new child can take longer than Celery's 4 s, after which it kills it
    "worker_proc_alive_timeout": 300,
    "worker_cancel_long_running_tasks_on_connection_loss": False,
    "worker_soft_shutdown_timeout": 60,
    "worker_enable_soft_shutdown_on_idle": True,
    "worker_enable_remote_control": False,
    "worker_send_task_events": False,
    "worker_hijack_root_logger": False,
    "worker_redirect_stdouts": False,
    "broker_connection_retry_on_startup": True,
    "broker_connection_max_retries": None,
    "broker_channel_error_retry": True,  # else an error that Redis answers would end the worker
}

_TRANSPORT: dict[str, Any] = {
    "socket_timeout": 30,
    "socket_connect_timeout": 5,
    "socket_keepalive": True,
    "health_check_interval": 25,
    "global_keyprefix": KEY_PREFIX,
    "priority_steps": [0],  # one queue, one key
}


def celery_app(settings: Settings) -> Celery:
    """The app for the settings' broker, which connects when used.

    Raises `Unreachable` or `Refused` as `Settings.broker` does.
    """
    return _app(settings.broker)


@cache
def _app(address: RedisAddress) -> Celery:
    # no fixups: the one for Django imports Celery's worker, in commands too
    app = Celery("genmill", broker=address.celery_url, set_as_current=False, fixups=())
    app.conf.update(_SETTINGS, task_queues={QUEUE: {"exchange": QUEUE, "routing_key": QUEUE}})
    app.conf.broker_transport_options = _TRANSPORT | dict(address.connection)
    if address.tls is not None:
        app.conf.broker_use_ssl = dict(address.tls)
    return app
