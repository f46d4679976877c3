"""What one answer took, and what its meter is told of its work."""

from __future__ import annotations

import threading
from typing import TYPE_CHECKING

from flyweight.energy.sharing import Nanojoules, cpu_of, thread_clock

if TYPE_CHECKING:
    from flyweight.energy.meter import Meter


class Account:
    """One answer's. Tell it of work as it is done; without, the thread that began it is its work.

    `reading` and `writing` are what its prompt and what its answer took.
    """

    def __init__(self, meter: Meter, prompt: int, weight: int) -> None:
        self._meter, self._weight = meter, weight
        self.reading, self.writing = Nanojoules(), Nanojoules()
        self.tokens_read = self.tokens_reused = self.tokens_written = 0
        self._read = self._written = 0  # of this interval
        self._owed = prompt  # tokens of the prompt that are being read
        self._ahead = 0  # that were settled before the engine told of them
        self._told = prompt > 0  # of tokens: then no thread of ours does the work
        self._own, self._clock, self._ran = 0, None, 0
        if not self._told:
            self._own = threading.get_ident()
            self._clock = thread_clock(self._own)
            self._ran = cpu_of(self._clock, self._own)
        self.ended = False

    def read(self, tokens: int) -> None:
        """So many more tokens of the prompt were computed; what was reused is no work."""
        with self._meter._lock:
            self._add_read(tokens)
            self._meter._worked_on(self)

    def wrote(self, tokens: int = 1) -> None:
        """So many more tokens were written."""
        with self._meter._lock:
            self._add_written(tokens)
            self._meter._worked_on(self)

    def reused(self, tokens: int) -> None:
        """So many tokens of the prompt, in all, were known already: nobody computes them."""
        with self._meter._lock:
            new, self.tokens_reused = tokens - self.tokens_reused, max(tokens, self.tokens_reused)
            self._owed = max(0, self._owed - max(0, new))
            if not self._owed:
                self._meter._readers.pop(self, None)

    def whole(self, read: int, written: int) -> None:
        """Tell of what the engine says in the end that was not told of before."""
        with self._meter._lock:
            if read > self.tokens_read:
                self._add_read(read - self.tokens_read)
            if written > self.tokens_written:
                self._add_written(written - self.tokens_written)
            self._meter._worked_on(self)

    def _add_read(self, tokens: int) -> None:
        self.tokens_read += tokens
        ahead = min(self._ahead, tokens)
        self._ahead -= ahead
        self._read += tokens - ahead
        self._owed = max(0, self._owed - (tokens - ahead))

    def _add_written(self, tokens: int) -> None:
        self.tokens_written += tokens
        self._written += tokens
        self._owed = self._ahead = 0  # the prompt has been read

    def end(self) -> None:
        """It is over: what was taken until now is settled. A second time changes nothing."""
        self._meter._end(self)

    @property
    def taken(self) -> Nanojoules:
        """Prompt and answer together."""
        return self.reading + self.writing


__all__ = ["Account"]
