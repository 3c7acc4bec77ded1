"""Turns at hosts: so many requests at a time, so many seconds apart, and none while a host asks to be left alone."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

from curation.errors import Rejected

# Hosts that are idle are forgotten when so many are known.
KEEP_HOSTS = 50_000


class NotNow(Rejected):
    """Transient, but another attempt within this build is not worth it."""

    def __init__(self, reason: str, detail: str = "", *, transient: bool = True) -> None:
        super().__init__(reason, detail, transient=transient)


@dataclass
class HostState:
    active: int = 0
    next_start: float = 0.0


class HostGate:
    """Shared by all threads that download.

    Args:
        concurrency: requests to one host at a time.
        max_wait: seconds that a request waits for its turn. Who would wait longer is turned away, so that one
            slow host does not hold up a build; the row is tried again in a later build.
    """

    def __init__(self, concurrency: int, max_wait: float) -> None:
        self._concurrency, self._max_wait = concurrency, max_wait
        self._changed = threading.Condition()
        self._hosts: dict[str, HostState] = {}

    @contextmanager
    def turn(self, host: str, delay: float) -> Iterator[None]:
        """The block is one request; the next one starts ``delay`` seconds after this one's start at the earliest.

        Raises:
            NotNow: ``fetch_host_busy``.
        """
        self._enter(host, delay)
        try:
            yield
        finally:
            with self._changed:
                self._hosts[host].active -= 1
                self._changed.notify_all()

    def pause(self, host: str, seconds: float) -> None:
        """No request to ``host`` for so long: its Retry-After."""
        with self._changed:
            state = self._hosts.setdefault(host, HostState())
            state.next_start = max(state.next_start, time.monotonic() + seconds)

    def _enter(self, host: str, delay: float) -> None:
        give_up = time.monotonic() + self._max_wait
        with self._changed:
            while True:
                state = self._hosts.setdefault(host, HostState())
                now = time.monotonic()
                if state.active < self._concurrency and now >= state.next_start:
                    break
                if state.next_start > give_up or now >= give_up:
                    raise NotNow("fetch_host_busy", host)
                # A host with all its requests under way is woken by the end of one.
                until = state.next_start if state.active < self._concurrency else give_up
                self._changed.wait(max(0.0, min(until, give_up) - now))
            state.active += 1
            state.next_start = now + delay
            self._forget_idle(now)

    def _forget_idle(self, now: float) -> None:
        if len(self._hosts) > KEEP_HOSTS:
            busy = {host: state for host, state in self._hosts.items() if state.active or state.next_start > now}
            self._hosts = busy
