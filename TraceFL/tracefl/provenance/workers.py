"""Many small jobs on several threads, each job on one thread from beginning to end.

The alternative, one operation after the other with each on all threads, has one core write what another core reads
next: between cores that share no cache, forming a gradient takes twice as long on two threads as on one.
"""

import threading
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor, wait
from contextlib import contextmanager
from typing import Generic, TypeVar

import torch
from torch import Tensor

MOST_WORKERS = 4  # threads that run Python get in one another's way; beyond it, each has several threads of its own

Place = tuple[int, int]
"""Number of a source, and of a job among those it makes."""

JobT = TypeVar("JobT")


class Work(Generic[JobT]):
    """Jobs for several threads, made by sources as needed; a free thread takes the next job or calls the next source.

    Args:
        sources: Each makes some jobs when it is called; the next is called when no job is waiting.
    """

    def __init__(self, sources: Iterable[Callable[[], Iterable[JobT]]]) -> None:
        self._sources = enumerate(sources)
        self._waiting: deque[tuple[Place, JobT]] = deque()
        self._being_made = 0
        self._stopped = False
        self._changed = threading.Condition()
        self.made: dict[int, int] = {}
        """Number of a source to how many jobs it made, once it has run."""

    def __iter__(self) -> Iterator[tuple[Place, JobT]]:
        """Yield jobs until there are none, each to one caller only."""
        while (found := self._next()) is not None:
            if not isinstance(found[0], int):
                yield found
                continue
            number, source = found
            jobs: list[JobT] = []
            try:
                jobs = list(source())
            finally:
                with self._changed:
                    self._being_made -= 1
                    self.made[number] = len(jobs)
                    self._waiting.extend(((number, place), job) for place, job in enumerate(jobs))
                    self._changed.notify_all()

    def _next(self) -> tuple[Place, JobT] | tuple[int, Callable[[], Iterable[JobT]]] | None:
        with self._changed:
            while not self._stopped:
                if self._waiting:
                    return self._waiting.popleft()
                source = next(self._sources, None)
                if source is not None:
                    self._being_made += 1
                    return source
                if not self._being_made:
                    return None
                self._changed.wait()
        return None

    def stop(self) -> None:
        """Hand out nothing more."""
        with self._changed:
            self._stopped = True
            self._changed.notify_all()


class OrderedSum:
    """A sum whose terms are added in the order of their places, whenever they arrive: the rounding is always the same.

    Args:
        made: ``Work.made``.
    """

    def __init__(self, made: dict[int, int]) -> None:
        self._total: Tensor | None = None
        self._made = made
        self._early: dict[Place, Tensor] = {}
        self._source, self._place = 0, 0
        self._lock = threading.Lock()

    def add(self, place: Place, term: Tensor) -> None:
        """Add a term now, or as soon as all before it are there."""
        with self._lock:
            self._early[place] = term
            self._advance()

    def total(self) -> Tensor:
        """Return the sum.

        Raises:
            ValueError: It has no terms.
        """
        self._advance()
        if self._total is None:
            raise ValueError("nothing to add up: no layer that was called has a gradient")
        return self._total

    def _advance(self) -> None:
        while True:
            term = self._early.pop((self._source, self._place), None)
            if term is not None:
                self._total = term if self._total is None else self._total.add_(term)
                self._place += 1
            elif self._made.get(self._source) == self._place:
                self._source, self._place = self._source + 1, 0
            else:
                return


def run_workers(work: Work[JobT], run: Callable[[], None], device: torch.device) -> None:
    """Call ``run``, which works through the jobs, on several threads; for a GPU on this one, which only starts kernels.

    Raises:
        Exception: What the first ``run`` to fail raised; the others then end early.
    """
    threads = torch.get_num_threads()
    count = min(threads, MOST_WORKERS) if device.type == "cpu" else 1
    if count == 1:
        run()
        return

    @torch.no_grad()
    def guarded() -> None:
        try:
            run()
        finally:
            work.stop()  # nothing is left, or something failed

    with _threads_of_torch(threads // count), ThreadPoolExecutor(count) as pool:
        running = [pool.submit(guarded) for _ in range(count)]
        try:
            wait(running)
        finally:
            work.stop()  # if this thread is interrupted, the others finish only what they have begun
    for worker in running:
        worker.result()


@contextmanager
def _threads_of_torch(count: int) -> Iterator[None]:
    before = torch.get_num_threads()
    torch.set_num_threads(count)
    try:
        yield
    finally:
        torch.set_num_threads(before)
