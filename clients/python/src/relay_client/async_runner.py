"""Performs the core's effects with asyncio.

HTTP/1.1 over asyncio's streams, and not `http.client` in a thread: a thread that waits for a
response cannot be cancelled, while here a cancelled task closes its connection at once.
"""

from __future__ import annotations

import asyncio
import io
from collections.abc import Coroutine
from typing import Any, TypeVar

from .async_connection import AsyncLineStream, AsyncPool
from .core import Core
from .effects import Answer, AskInfo, Effect, ReadLine, ReadSource, Reply, Send, Steps
from .errors import RelayError, closed, unreachable, timed_out

T = TypeVar("T")


class AsyncRunner:
    """Runs procedures of the core. Tasks of one event loop may share it; `close` ends them."""

    def __init__(self, core: Core) -> None:
        self.is_closed = False
        self._core = core
        self._pool = AsyncPool(core.endpoint, core.options.ssl_context)
        self._info_lock = asyncio.Lock()
        self._info_tries = 0
        self._work: set[asyncio.Task[Any]] = set()

    async def close(self) -> None:
        """Ends all requests and pauses; from then on there are no others."""
        self.is_closed = True
        for task in self._work:
            task.cancel()
        if self._work:
            await asyncio.wait(set(self._work))
        await self._pool.close()

    async def run(self, steps: Steps[T]) -> T:
        """Performs the effects of a procedure until it returns or raises."""
        try:
            effect = next(steps)
            while True:
                try:
                    reply = await self._perform(effect)
                except RelayError as error:
                    effect = steps.throw(error)
                else:
                    effect = steps.send(reply)
        except StopIteration as stop:
            result: T = stop.value
            return result
        finally:
            steps.close()

    async def do(self, work: Coroutine[Any, Any, T], timeout_s: float | None) -> T:
        """Runs `work` as a task that ends with the caller, with the time, or with `close`.

        Raises `timeout` or `closed`. `asyncio.wait_for` does not do: it cannot tell `close` from
        a cancelled caller, and before Python 3.12 it could lose a connection or a cancellation.
        """
        if self.is_closed:
            work.close()
            raise closed()
        task = asyncio.get_running_loop().create_task(work)
        self._work.add(task)
        is_taken = False
        try:
            await asyncio.wait({task}, timeout=timeout_s)
            if not task.done():
                raise timed_out()
            if task.cancelled():
                raise closed()
            is_taken = True
            return task.result()
        finally:
            self._work.discard(task)
            if not is_taken:
                # The work may have ended just when its caller was cancelled.
                task.cancel()
                task.add_done_callback(_drop_result)
            if not task.done():
                await asyncio.wait({task})

    async def _perform(self, effect: Effect) -> Reply:
        if isinstance(effect, Send):
            return await self.do(self._pool.send(effect.request), effect.request.timeout_s)
        if isinstance(effect, AskInfo):
            await self._ask_info(effect)
        elif isinstance(effect, ReadLine):
            assert isinstance(effect.stream, AsyncLineStream), "this runner opened the stream"
            return await self.do(effect.stream.read(), effect.timeout_s)
        elif isinstance(effect, ReadSource):
            if isinstance(effect.source, io.BytesIO):
                return effect.source.read(effect.size)
            return await self.do(asyncio.to_thread(effect.source.read, effect.size), None)
        else:
            await self.do(asyncio.sleep(effect.seconds), None)
        return None

    async def _ask_info(self, effect: AskInfo) -> None:
        """Asks once for all tasks; those that waited share a failure too."""
        tries = self._info_tries
        async with self._info_lock:
            if self._core.info is not None:
                return
            if self._info_tries != tries:
                raise unreachable("another request has just failed to reach the relay")
            self._info_tries += 1
            request = effect.request
            self._core.take_info(await self.do(self._pool.send(request), request.timeout_s))


def _drop_result(task: asyncio.Task[Any]) -> None:
    """Closes the stream that nobody takes, and marks an error as seen."""
    if task.cancelled() or task.exception() is not None:
        return
    result = task.result()
    if isinstance(result, Answer) and result.stream is not None:
        result.stream.close()
