"""Shards made by processes of this machine.

The processes are plain interpreters that hear of their work through a pipe: nothing is forked (a forked child of a process with threads can
hang), and unlike with `multiprocessing` the script that called is not run again, so it needs no ``if __name__ == "__main__"``. A process that dies
is replaced and its shard made again; one whose parent dies hears it from the pipe and ends.
"""

from __future__ import annotations

import contextlib
import os
import pickle
import queue
import signal
import socket
import subprocess
import sys
import threading
import traceback
from collections.abc import Callable, Iterator
from concurrent.futures import CancelledError, Future, ThreadPoolExecutor
from multiprocessing.connection import Connection
from typing import Any

from brainmu.errors import StoreError
from brainmu.store import payload
from brainmu.store.folder import Folder
from brainmu.store.shards import InProcess, Made, Shard, make_shard, processors
from brainmu.store.streams import Stream

__all__ = ["ATTEMPTS", "Processes", "serve"]

ATTEMPTS = 3
"""Times a shard is tried where the process that makes it dies."""
_CHILD = "import sys; sys.path[:] = {path!r}; from brainmu.store.parallel import serve; serve({handle})"


class Processes:
    """A number of processes that make the shards of one store, or of several that are written in threads beside one another.

    Parameters
    ----------
    jobs : int
        Processes; each is started when there is work for it.
    threads : int or None
        For the arithmetic of each. Default: the processors there are, divided.
    shared : bool
        Whether several stores are written: then even a single shard goes to a process.
    """

    def __init__(self, jobs: int, threads: int | None = None, *, shared: bool = False) -> None:
        self.jobs, self.threads, self.shared = jobs, threads, shared
        self._errands = ThreadPoolExecutor(jobs)
        self._free: queue.SimpleQueue[_Worker | None] = queue.SimpleQueue()
        self._running: set[_Worker] = set()
        self._lock = threading.Lock()
        self._closed = False
        for _ in range(jobs):
            self._free.put(None)

    def __enter__(self) -> Processes:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """End every process at once: what it was making is made again by the next run."""
        with self._lock:
            self._closed = True
            for worker in self._running:
                worker.kill()
        self._errands.shutdown(cancel_futures=True)

    def run(self, streams: list[Stream], shards: list[Shard], folder: Folder, report: Callable[[Shard, float], None]) -> Iterator[tuple[Shard, Made]]:
        """Make `shards`, as they get done.

        Raises
        ------
        StoreError
            If the process that makes a shard dies three times.
        """
        if len(shards) < (1 if self.shared else 2):
            yield from InProcess(self.threads).run(streams, shards, folder, report)
            return
        packed = folder.scratch / "streams"
        packed.write_bytes(payload.pack(streams, folder.scratch))
        threads = self.threads or max(1, min(4, processors() // (self.jobs if self.shared else min(self.jobs, len(shards)))))
        heard: queue.SimpleQueue[tuple[Shard, Any]] = queue.SimpleQueue()
        errands = [self._errands.submit(self._errand, (packed, folder.sink, s, threads), s, lambda f, s=s: heard.put((s, f))) for s in shards]
        for shard, errand in zip(shards, errands):
            errand.add_done_callback(lambda e, shard=shard: heard.put((shard, e)))
        try:
            waiting = len(shards)
            while waiting:
                shard, news = heard.get()
                if not isinstance(news, Future):
                    report(shard, news)
                    continue
                waiting -= 1
                yield shard, _result(news)
        finally:
            for errand in errands:
                errand.cancel()

    def _errand(self, work: tuple[Any, ...], shard: Shard, report: Callable[[float], None]) -> Made:
        """Have one shard made by a free process; runs in a thread of this one."""
        worker = self._free.get()
        try:
            for _ in range(ATTEMPTS):
                worker = worker or self._start()
                try:
                    return worker.do(work, report)
                except EOFError:
                    end = worker.ended()
                    self._forget(worker)
                    worker = None
                    if self._closed:
                        raise CancelledError from None
            raise StoreError(
                f"{shard.array}: the process that makes shard {shard.k} ended {ATTEMPTS} times ({end}; a kill is most often for memory): "
                "free memory or use fewer jobs, then run the same command again"
            )
        finally:
            self._free.put(worker)

    def _start(self) -> _Worker:
        with self._lock:
            if self._closed:
                raise CancelledError
            worker = _Worker()
            self._running.add(worker)
            return worker

    def _forget(self, worker: _Worker) -> None:
        with self._lock:
            self._running.discard(worker)


def _result(errand: Future[Made]) -> Made:
    try:
        return errand.result()
    except CancelledError:
        raise StoreError("the work was stopped: run the same command again to go on") from None


class _Worker:
    """One process, and this side of its pipe."""

    def __init__(self) -> None:
        ours, theirs = socket.socketpair()
        with theirs:
            code = _CHILD.format(path=sys.path, handle=theirs.fileno())
            with _no_interrupts():
                self.process = subprocess.Popen([sys.executable, "-c", code], stdin=subprocess.DEVNULL, stdout=2, pass_fds=[theirs.fileno()])
        self.pipe = Connection(ours.detach())

    def do(self, work: tuple[Any, ...], report: Callable[[float], None]) -> Made:
        """Send work and wait for what comes of it. Raises EOFError if the process dies."""
        try:
            self.pipe.send_bytes(pickle.dumps(work))
            while True:
                kind, what = self.pipe.recv()
                if kind == "at":
                    report(what)
                elif kind == "made":
                    return what
                else:
                    error, trace = what
                    error.add_note(f"in a process of brainmu:\n{trace}")
                    raise error
        except (BrokenPipeError, ConnectionResetError):
            raise EOFError from None

    def ended(self) -> str:
        """How the process ended, in words."""
        self.pipe.close()
        code = self.process.wait()
        with contextlib.suppress(ValueError):
            return f"killed by {signal.Signals(-code).name}"
        return f"exit code {code}"

    def kill(self) -> None:
        self.process.kill()
        self.process.wait()


@contextlib.contextmanager
def _no_interrupts() -> Iterator[None]:
    # Ctrl-C reaches every process of the terminal. Only this one is to answer it; the mask is inherited.
    before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


# -- the other side -----------------------------------------------------------------------------------------------------
def serve(handle: int) -> None:
    """Make shards as they are asked for, until the pipe closes."""
    pipe = Connection(handle)
    wanted: queue.SimpleQueue[bytes] = queue.SimpleQueue()
    threading.Thread(target=_listen, args=(pipe, wanted), daemon=True).start()
    with ThreadPoolExecutor(1) as one:
        while True:
            work = one.submit(_make, wanted.get(), pipe)
            error = work.exception()  # whatever it is, the parent raises it
            if error is None:
                pipe.send(("made", work.result()))
            else:
                pipe.send(("error", (_sendable(error), "".join(traceback.format_exception(error)))))


def _make(work: bytes, pipe: Connection) -> Made:
    packed, sink, shard, threads = pickle.loads(work)
    return make_shard(payload.load(packed)[shard.stream], sink, shard, threads, lambda f: pipe.send(("at", f)))


def _listen(pipe: Connection, wanted: queue.SimpleQueue[bytes]) -> None:
    """Queue what the parent asks for; the end of the pipe is the end of the parent, and of this process in the middle of whatever it does."""
    try:
        while True:
            wanted.put(pipe.recv_bytes())
    except (EOFError, OSError):
        os._exit(1)


def _sendable(error: BaseException) -> BaseException:
    """The error, or one that says the same where it does not survive the way."""
    try:
        copy = pickle.loads(pickle.dumps(error))
    except (pickle.PicklingError, TypeError, AttributeError, ValueError, KeyError):
        copy = None
    if isinstance(copy, type(error)) and str(copy) == str(error):
        return copy
    return RuntimeError(f"{type(error).__name__}: {error}")
