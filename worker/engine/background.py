"""Work beside the training steps: one thread, one task at a time, in the order given."""

from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from typing import TypeVar

import torch
from torch import Tensor

from worker.engine.device import deterministic
from worker.engine.memory import copy_network
from worker.engine.threads import crowded
from worker.networks.network import Network

T = TypeVar("T")
Task = Callable[[], None]


def _ignore(_: object) -> None:
    pass


class Background:
    """A thread for tasks that the training loop need not wait for.

    The first error of a task is raised by the loop's next call, and the tasks after it are dropped.
    """

    def __init__(self) -> None:
        # how denormal numbers are treated is set for each thread
        self._executor = ThreadPoolExecutor(1, "beside-training", initializer=deterministic)
        self._tasks: list[Future[None]] = []
        self._failed = False

    def run(self, task: Task) -> None:
        """Queue a task."""
        self.raise_if_failed()
        self._tasks.append(self._executor.submit(self._attempt, task))

    def raise_if_failed(self, *, but: type[Exception] | tuple[type[Exception], ...] = ()) -> None:
        """Raise the error of a task that has ended, if any; one of the types `but` later."""
        while self._tasks and self._tasks[0].done():
            if but and isinstance(self._tasks[0].exception(), but):
                return
            self._tasks.pop(0).result()

    @property
    def busy(self) -> bool:
        """Whether a task is running or waiting."""
        return any(not task.done() for task in self._tasks)

    def wait(self) -> None:
        """Return once all tasks are done."""
        while self._tasks:
            self._tasks.pop(0).result()

    def drop_waiting(self) -> None:
        """Drop the tasks that wait; the current one goes on."""
        self._failed = True

    def close(self) -> None:
        """Drop the tasks that wait, and return once the current one is done; errors are lost."""
        self._executor.shutdown(cancel_futures=True)

    def _attempt(self, task: Task) -> None:
        if self._failed:
            return
        try:
            task()
        except BaseException:
            self._failed = True
            raise


class NetworkCopy:
    """Runs tasks on the weights of a step while the next steps change the network's own.

    Where the steps keep the GPU or all cores busy, a task runs before the next step instead.
    """

    def __init__(self, network: Network, device: torch.device, background: Background) -> None:
        self._network, self._device, self._background = network, device, background
        self._copy: Network | None = None
        self._step = -1  # whose weights the copy has

    def run(
        self, task: Callable[[Network], T], *, step: int, then: Callable[[T], None] = _ignore
    ) -> None:
        """Run `task` on the network as it is now, after `step` steps, and `then` on its result.

        Returns at once, unless a task on the weights of an earlier step has not ended.
        """
        if self._device.type != "cpu" or crowded():
            result = task(self._network)
            self._background.run(lambda: then(result))
            return
        copy = self._follow(step)
        self._background.run(lambda: then(task(copy)))

    def weights(self) -> dict[str, Tensor]:
        """Copies of the weights that the latest task beside the steps was run on, if one was."""
        copied = self._copy.state_dict() if self._copy else {}
        return {name: value.detach().clone() for name, value in copied.items()}

    def _follow(self, step: int) -> Network:
        if self._copy is None:
            self._copy = copy_network(self._network, self._device)
        elif step != self._step:
            self._background.wait()
            self._copy.load_state_dict(self._network.state_dict())
        self._step = step
        return self._copy
