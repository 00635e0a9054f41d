"""Performs the core's effects with blocking I/O, in the thread that asks for it."""

from __future__ import annotations

import threading
from typing import TypeVar

from .connection import LineStream, Pool
from .core import Core
from .effects import AskInfo, Effect, ReadLine, ReadSource, Reply, Send, Steps
from .errors import RelayError, closed, unreachable, timed_out

T = TypeVar("T")


class BlockingRunner:
    """Runs procedures of the core. Threads may share it; `close` ends what they do."""

    def __init__(self, core: Core) -> None:
        self._core = core
        self._pool = Pool(core.endpoint, core.options.ssl_context)
        self._closing = threading.Event()
        self._info_lock = threading.Lock()
        self._info_tries = 0

    @property
    def is_closed(self) -> bool:
        """Whether `close` was called."""
        return self._closing.is_set()

    def close(self) -> None:
        """Ends all requests and pauses; from then on there are no others."""
        self._closing.set()
        self._pool.close()

    def run(self, steps: Steps[T]) -> T:
        """Performs the effects of a procedure until it returns or raises."""
        try:
            effect = next(steps)
            while True:
                try:
                    reply = self._perform(effect)
                except RelayError as error:
                    effect = steps.throw(error)
                else:
                    effect = steps.send(reply)
        except StopIteration as stop:
            result: T = stop.value
            return result
        finally:
            steps.close()

    def _perform(self, effect: Effect) -> Reply:
        """Performs one effect. What `close` breaks off raises `closed`."""
        try:
            self._check_open()
            if isinstance(effect, Send):
                return self._pool.send(effect.request)
            if isinstance(effect, AskInfo):
                self._ask_info(effect)
            elif isinstance(effect, ReadLine):
                assert isinstance(effect.stream, LineStream), "this runner opened the stream"
                return effect.stream.read(effect.timeout_s)
            elif isinstance(effect, ReadSource):
                return effect.source.read(effect.size)
            elif self._closing.wait(effect.seconds):
                raise closed()
            return None
        except RelayError:
            self._check_open()
            raise

    def _check_open(self) -> None:
        if self._closing.is_set():
            raise closed() from None

    def _ask_info(self, effect: AskInfo) -> None:
        """Asks once for all threads; those that waited share a failure too."""
        tries = self._info_tries
        if not self._info_lock.acquire(timeout=effect.request.timeout_s):
            raise timed_out()
        try:
            if self._core.info is None:
                if self._info_tries != tries:
                    raise unreachable("another request has just failed to reach the relay")
                self._info_tries += 1
                self._core.take_info(self._pool.send(effect.request))
        finally:
            self._info_lock.release()
