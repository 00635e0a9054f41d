"""When a queue is read from its front again, for messages that were dropped from memory.

As long as that completes none, the pauses grow: somebody may have filled the queue with messages
that never become whole. It reads no clock.
"""

from __future__ import annotations

import math

_PAUSE_S = 60.0
_PAUSE_MAX_S = 3600.0


class Rereads:
    """The pauses of one queue. The first reading is due at once."""

    def __init__(self) -> None:
        self.due_at = -math.inf
        self._pause_s = _PAUSE_S
        self._is_reading = False
        self._has_completed = False

    def begin(self) -> None:
        """The queue is read from its front."""
        self._is_reading = True
        self._has_completed = False

    def completed(self) -> None:
        """A message of several chunks is complete. Others need no second reading."""
        self._has_completed = True

    def end(self, now: float) -> None:
        """The end of the queue is reached. The pause counts from here."""
        if not self._is_reading:
            return
        self._is_reading = False
        self._pause_s = _PAUSE_S if self._has_completed else min(2 * self._pause_s, _PAUSE_MAX_S)
        self.due_at = now + self._pause_s
