"""Where ingest's tasks run: processes of this machine, or a Ray cluster. Tasks may run twice, and die."""

import atexit
import os
import signal
import sys
import threading
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from contextlib import contextmanager
from multiprocessing import get_context, parent_process
from typing import Any, Protocol

from cluster.config import ClusterConfig
from pipelines.environment import environment
from pipelines.progress import track

Task = Callable[..., Any]
MAX_RETRIES = 3
VARIABLES = {
    "POLARS_MAX_THREADS": "1",
    "OMP_NUM_THREADS": "1",
    # Memory that a task frees serves the next one, and one allocator holds it: a third of the time in the kernel less.
    "MALLOC_MMAP_THRESHOLD_": "268435456",
    "MALLOC_TRIM_THRESHOLD_": "536870912",
    "ARROW_DEFAULT_MEMORY_POOL": "system",
}


class Workers(Protocol):
    """What runs tasks."""

    def run(self, task: Task, calls: Sequence[tuple[Any, ...]], what: str) -> list[Any]:
        """Results in order. The first error is raised as the task raised it, and the other tasks are called off."""


@contextmanager
def workers(config: ClusterConfig, shared: Any) -> Iterator[Workers]:
    """Workers that call tasks with ``shared`` as the first argument.

    Processes of this machine where ``cluster.address`` names none: they start in less than a second, and Ray takes
    several. Where this process is connected to Ray already, or is to be, Ray's workers.
    """
    ray = sys.modules.get("ray")
    if config.address is None and not (ray is not None and ray.is_initialized()):
        with _Processes(config.num_cpus or os.cpu_count() or 1, shared) as processes:
            yield processes
        return
    from cluster.connection import connect

    with connect(config):
        yield _RayTasks(shared)


class _Processes:
    """A pool of processes; one that died is replaced, and what it was at is done again."""

    def __init__(self, count: int, shared: Any) -> None:
        self._count, self._shared = count, shared
        self._pool: ProcessPoolExecutor | None = None

    def __enter__(self) -> "_Processes":
        return self

    def __exit__(self, *error: object) -> None:
        if self._pool is not None:
            self._pool.shutdown(wait=error[0] is None, cancel_futures=True)

    def run(self, task: Task, calls: Sequence[tuple[Any, ...]], what: str) -> list[Any]:
        if len(calls) == 1 and self._pool is None:
            return [task(self._shared, *calls[0])]
        results: dict[int, Any] = {}
        for attempt in range(MAX_RETRIES + 1):
            left = [n for n in range(len(calls)) if n not in results]
            try:
                pool = self._start()
                with environment(VARIABLES):  # processes start as tasks come
                    futures: dict[int, Future[Any]] = {n: pool.submit(_call, task, calls[n]) for n in left}
                for n in track(left, len(left), what):
                    results[n] = futures[n].result()
                break
            except BrokenProcessPool:
                self._pool = None
                if attempt == MAX_RETRIES:
                    raise
        return [results[n] for n in range(len(calls))]

    def _start(self) -> ProcessPoolExecutor:
        if self._pool is None:
            self._pool = ProcessPoolExecutor(
                self._count, mp_context=get_context("spawn"), initializer=_begin, initargs=(self._shared,)
            )
        return self._pool


class _RayTasks:
    """Ray's tasks."""

    def __init__(self, shared: Any) -> None:
        import ray

        self._ray, self._shared = ray, ray.put(shared)

    def run(self, task: Task, calls: Sequence[tuple[Any, ...]], what: str) -> list[Any]:
        from ray.exceptions import RayTaskError

        remote = self._ray.remote(num_cpus=1, max_retries=MAX_RETRIES, runtime_env={"env_vars": VARIABLES})(
            task
        )
        refs = [remote.remote(self._shared, *call) for call in calls]
        try:
            return [self._ray.get(ref) for ref in track(refs, len(refs), what)]
        except BaseException as error:
            for ref in refs:
                self._ray.cancel(ref)
            if isinstance(error, RayTaskError) and isinstance(error.cause, Exception):
                raise error.cause from None
            raise


_shared: Any = None


def _begin(shared: Any) -> None:
    """Prepare a new process: one thread, no word on Ctrl-C, and no life after its parent's."""
    global _shared
    _shared = shared
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    atexit.register(
        os._exit, 0
    )  # files are closed by then, and to take all modules apart takes a tenth of a second
    threading.Thread(target=_end_with_parent, daemon=True).start()


def _end_with_parent() -> None:
    parent = parent_process()
    assert parent is not None
    parent.join()
    os._exit(1)


def _call(task: Task, call: tuple[Any, ...]) -> Any:
    return task(_shared, *call)
