"""Shards made by the workers of a Dask cluster."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from brainmu.errors import InputError, StoreError
from brainmu.store import payload
from brainmu.store.folder import Folder, FolderSink, Sink
from brainmu.store.shards import Made, Shard, make_shard
from brainmu.store.streams import Stream

__all__ = ["Cluster"]


class Cluster:
    """The workers of the scheduler at `address`. They must have brainmu, and see sources and output under the same paths.

    A shard whose worker dies is given to another, as often as the scheduler's ``distributed.scheduler.allowed-failures`` says (3).

    Raises
    ------
    InputError
        If nothing answers at `address`.
    """

    def __init__(self, address: str) -> None:
        from distributed import Client

        self.address = address
        try:
            self.client = Client(address, timeout=10, set_as_default=False)
        except (OSError, ValueError) as error:
            raise InputError(f"scheduler {address!r} does not answer ({error}): start one with `dask scheduler`, expected tcp://host:8786") from None

    def __enter__(self) -> Cluster:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Let the scheduler go; its workers stay."""
        self.client.close()

    def run(self, streams: list[Stream], shards: list[Shard], folder: Folder, report: Callable[[Shard, float], None]) -> Iterator[tuple[Shard, Made]]:
        """Make `shards`, as they get done.

        Raises
        ------
        StoreError
            If the workers that make a shard die again and again, or the scheduler goes.
        """
        from distributed import as_completed
        from distributed.client import FutureCancelledError
        from distributed.scheduler import KilledWorker

        if not shards:
            return
        # A piece of work carries the place of the streams, or the streams where the store lies on no file system that the workers share.
        shared = isinstance(folder.sink, FolderSink)
        packed: Path | bytes = payload.pack(streams, folder.scratch if shared else None)
        if shared and isinstance(packed, bytes):
            (folder.scratch / "streams").write_bytes(packed)
            packed = folder.scratch / "streams"
        waiting: dict[Any, Shard] = {self.client.submit(_make, packed, folder.sink, shard, pure=False): shard for shard in shards}
        try:
            for future in as_completed(list(waiting), loop=self.client.loop):
                shard = waiting[future]
                try:
                    made = future.result()
                except KilledWorker:
                    raise StoreError(
                        f"{shard.array}: the workers that made shard {shard.k} died again and again (most often for memory): "
                        "give them more memory or one thread each, then run the same command again"
                    ) from None
                except (FutureCancelledError, asyncio.CancelledError):
                    raise StoreError(f"the scheduler {self.address} is gone: start it again, then run the same command again") from None
                yield shard, made
        finally:
            with contextlib.suppress(OSError):
                self.client.cancel(list(waiting))


def _make(packed: Path | bytes, sink: Sink, shard: Shard) -> Made:
    if isinstance(packed, Path) and not packed.exists():
        raise StoreError(f"{packed.parent}: a worker of the cluster finds no such folder: give an --out on a file system that all workers share")
    return make_shard(payload.load(packed)[shard.stream], sink, shard, 1, lambda fraction: None)
