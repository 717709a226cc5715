"""Giving work to workers, piece by piece, and what becomes of each piece.

A piece whose worker is gone is given to another one, by the engine. A piece that fails for want of
what the machine should have (a full disk) is given to another machine, and the worker takes no
more. An error of emcache's own is the same everywhere, and comes back.
"""

from __future__ import annotations

import socket
import threading
import time
import uuid
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from itertools import chain, islice
from typing import TYPE_CHECKING, Any, Generic, TypeVar

import torch

from emcache.cluster.identity import (
    Identity,
    check_versions,
    check_visible,
    own_identity,
    use_own_gpu,
)
from emcache.cluster.spec import ClusterChoice, Scheduler, find_cluster
from emcache.cluster.workers import started_workers, threads_of
from emcache.errors import ClusterError, EmcacheError
from emcache.progress import Reporter
from emcache.storage import atomic
from emcache.storage.workspace import CONFIG_NAME, Workspace

if TYPE_CHECKING:
    from distributed import Client, Future

Item = TypeVar("Item")
Value = TypeVar("Value")

_POLL_SECONDS = 1.0
_NO_WORKER_SECONDS = 120.0
_MOST_TRIES = 3
# A worker of several threads would draw random numbers for two trainings from one generator.
_one_at_a_time = threading.Lock()


@dataclass(frozen=True, slots=True)
class Outcome(Generic[Item, Value]):
    """What became of a piece of work."""

    item: Item
    value: Value | None
    problem: EmcacheError | None
    """Why there is no value."""


@dataclass(frozen=True, slots=True)
class _Answer:
    """What a worker sends back: a value, or an error that is not worth trying again."""

    value: Any = None
    problem: EmcacheError | None = None


@dataclass(slots=True)
class Pool:
    """Workers that compute what this process expects."""

    client: Client
    choice: ClusterChoice
    identity: Identity
    """What the workers compute with."""
    reporter: Reporter
    keep: Callable[[], None]
    """Has workers that were lost made again."""
    _refused: set[str] = field(default_factory=set)
    """Addresses of workers that take no more."""

    @property
    def workers(self) -> list[str]:
        """Addresses of the workers that take work."""
        found = self.client.scheduler_info(n_workers=-1)["workers"]
        return [
            address
            for address, facts in found.items()
            if address not in self._refused and facts.get("status") != "paused"
        ]

    def run(
        self,
        function: Callable[[Item], Value],
        items: Iterable[Item],
        watch: Callable[[int], None] | None = None,
    ) -> Iterator[Outcome[Item, Value]]:
        """Have workers call a function for each of many items; outcomes come as they end.

        Args:
            function: Of a module that workers can import. What it writes must be safe to write
                twice: a worker that lost its network may be at it while another one is.
            items: What it is called with; taken one by one, so they may be many.
            watch: Told every second how many workers are at work.

        Raises:
            ClusterError: The scheduler or all workers are gone, or a worker computes with other
                versions.
        """
        from distributed import wait
        from distributed.client import FuturesCancelledError

        waiting = iter(items)
        again: list[tuple[Item, int]] = []
        active: dict[Future, tuple[Item, int]] = {}
        lonely = time.monotonic()
        try:
            while True:
                workers = self.workers
                if workers:
                    lonely = time.monotonic()
                room = max(0, max(1, len(workers)) - len(active))
                new = ((item, 0) for item in waiting)
                for item, tries in islice(chain(again, new), room):
                    active[self._submit(function, item)] = (item, tries + 1)
                del again[:room]
                if not active:
                    return
                # Futures are cancelled where the scheduler is lost, which their status tells below.
                with suppress(TimeoutError, FuturesCancelledError):
                    wait(list(active), timeout=_POLL_SECONDS, return_when="FIRST_COMPLETED")
                if watch is not None:
                    watch(min(len(active), len(workers)))
                for future in [future for future in active if future.done()]:
                    item, tries = active.pop(future)
                    answer = self._answer(future, tries)
                    if answer is None:
                        again.append((item, tries))
                        continue
                    yield Outcome(item, answer.value, answer.problem)
                self.keep()
                self._check_alive(lonely)
        except OSError as error:
            raise self._lost() from error
        finally:
            with suppress(Exception):
                self.client.cancel(list(active), force=True)

    def _submit(self, function: Callable[[Item], Value], item: Item) -> Future:
        return self.client.submit(
            _perform,
            function,
            item,
            self.identity,
            threads_of(self.choice),
            pure=False,
            key=f"emcache-{uuid.uuid4().hex}",
            workers=self.workers if self._refused else None,
            # Those may end, too.
            allow_other_workers=bool(self._refused),
        )

    def _answer(self, future: Future, tries: int) -> _Answer | None:
        """What a piece has come to; None where it shall be tried elsewhere."""
        from distributed.scheduler import KilledWorker

        if future.status == "finished":
            answer: _Answer = future.result()
            return answer
        error = future.exception() if future.status == "error" else None
        match error:
            case KilledWorker() if tries < _MOST_TRIES:
                # It may only have waited at workers that another piece has ended.
                return None
            case KilledWorker():
                return _Answer(
                    problem=ClusterError(
                        f"{tries * (error.allowed_failures + 1)} workers ended while they were at "
                        f"the same piece of work, the last one at {error.last_worker.address}; "
                        f"often their memory is too small: use a smaller --batch, or more memory "
                        f"a worker."
                    )
                )
            case _OutOfOrder():
                self._refuse(error)
                if tries < _MOST_TRIES and self.workers:
                    return None
                return _Answer(problem=ClusterError(f"{error}; fix that, and run it again."))
            case ImportError():
                raise ClusterError(
                    f"a worker cannot import emcache ({error!s:.200}); expected the same "
                    f"environment as this process has: install it there."
                ) from error
            case BaseException():
                raise error
        if self.client.status != "running":
            raise self._lost()
        return None

    def _refuse(self, error: _OutOfOrder) -> None:
        if error.worker not in self._refused:
            self._refused.add(error.worker)
            self.reporter.say(f"{error}: it gets no more work.")

    def _check_alive(self, lonely: float) -> None:
        if self.client.status not in ("running", "connecting"):
            raise self._lost()
        alone = time.monotonic() - lonely
        if isinstance(self.choice, Scheduler) and alone > _NO_WORKER_SECONDS:
            raise ClusterError(
                f"the scheduler at {self.choice.address} has had no worker that takes work for "
                f"{alone:.0f} s; what is done is kept: start some with `dask worker ADDRESS "
                f"--nthreads 1 --memory-limit 0`, and run the command again."
            )

    def _lost(self) -> ClusterError:
        return ClusterError(
            "the scheduler is gone; what is done is kept: start it again, and run the same command."
        )


class _OutOfOrder(Exception):  # noqa: N818 - it never reaches a user
    """A worker whose machine lacks something."""

    def __init__(self, message: str, worker: str) -> None:
        super().__init__(message, worker)
        self.worker = worker

    def __str__(self) -> str:
        return str(self.args[0])


@contextmanager
def open_pool(
    workspace: Workspace,
    text: str | None,
    reporter: Reporter,
    device: str = "auto",
    precision: str = "auto",
) -> Iterator[Pool | None]:
    """The workers of a command; None where it runs in this process alone.

    Args:
        workspace: What they work on.
        text: As ``--cluster`` has it; None for what ``emcache.toml`` says.
        reporter: Receives messages.
        device: As asked of the workers.
        precision: As asked of the workers.

    Raises:
        UsageError: The text is nothing that could be a cluster.
        ClusterError: Workers are not there, differ from this process or from each other, or do not
            see the workspace.
    """
    choice = find_cluster(workspace, text)
    if choice is None:
        yield None
        return
    with started_workers(choice, workspace.root, reporter) as (client, keep):
        identity = _common_identity(client, workspace, device, precision)
        yield Pool(client, choice, identity, reporter, keep)


def _common_identity(client: Client, workspace: Workspace, device: str, precision: str) -> Identity:
    """What all workers compute with, once they were found to be alike and to see the workspace."""
    # A name by which `cache prune` knows what a kill left.
    marker = workspace.root / f".{CONFIG_NAME}.{uuid.uuid4().hex}.seen"
    content = uuid.uuid4().hex
    atomic.write_bytes(marker, content.encode(), durable=False)
    try:
        found: dict[str, Identity] = _ask(client, own_identity, device, precision)
        own = own_identity("cpu", "float32")
        for worker, identity in found.items():
            check_versions(worker, identity, own)
        _ask(client, _see, marker, content)
    finally:
        marker.unlink(missing_ok=True)
    kinds = sorted({(each.device, each.precision) for each in found.values()})
    if len(kinds) > 1:
        words = " and ".join(f"{where} in {how}" for where, how in kinds)
        raise ClusterError(
            f"the workers compute on {words}; expected one kind, since tokens depend on it: choose "
            f"one with --device and --precision."
        )
    return own.on(*kinds[0])


def _ask(client: Client, function: Callable[..., Any], *arguments: Any) -> dict[str, Any]:
    """What each worker answers; one that ends meanwhile is left out, and the next is waited for."""
    until = time.monotonic() + _NO_WORKER_SECONDS
    while time.monotonic() < until:
        found: dict[str, Any] = client.run(function, *arguments, on_error="return")
        answers = {worker: _checked(worker, answer) for worker, answer in found.items()}
        # Where the connection to a worker breaks, Dask answers with an error of the system.
        there = {w: answer for w, answer in answers.items() if not isinstance(answer, OSError)}
        if there:
            return there
        time.sleep(_POLL_SECONDS)
    raise ClusterError(
        f"no worker has stayed for {_NO_WORKER_SECONDS:.0f} s; look at what they print."
    )


def _checked(worker: str, answer: Any) -> Any:
    """A worker's answer, or the error that it answered with."""
    match answer:
        case EmcacheError():
            raise ClusterError(f"worker {worker}: {answer}", subject=worker) from answer
        case ImportError():
            raise ClusterError(
                f"worker {worker} cannot import emcache ({answer!s:.200}); expected the same "
                f"environment as this process has: install it there.",
                subject=worker,
            ) from answer
        case BaseException() if not isinstance(answer, OSError):
            raise answer
    return answer


def _see(marker: Any, content: str, dask_worker: Any) -> None:
    """Whether the worker that this is called in sees the workspace."""
    check_visible(dask_worker.address, socket.gethostname(), marker, content)


def _perform(
    function: Callable[[Item], Value], item: Item, expected: Identity, threads: int | None
) -> _Answer:
    """In a worker: do one piece, as this process should."""
    from distributed import get_worker

    worker = get_worker()
    check_versions(worker.address, own_identity("cpu", "float32"), expected)
    use_own_gpu(str(worker.name))
    if threads is not None and torch.get_num_threads() != threads:
        torch.set_num_threads(threads)
    try:
        with _one_at_a_time:
            return _Answer(function(item))
    except EmcacheError as error:
        return _Answer(problem=error)
    except OSError as error:
        where = f" ({error.filename})" if error.filename else ""
        raise _OutOfOrder(
            f"worker {worker.address} on {socket.gethostname()} failed: "
            f"{error.strerror or error}{where}",
            worker.address,
        ) from error
