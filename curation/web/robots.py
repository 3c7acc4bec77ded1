"""What a site asks of crawlers: robots.txt (RFC 9309) and the X-Robots-Tag header."""

from __future__ import annotations

import threading
import time
from collections import OrderedDict
from collections.abc import Callable, Iterable
from dataclasses import dataclass

from protego import Protego

from curation.errors import Rejected
from curation.web.politeness import NotNow
from curation.web.safe_http import Target

# What we are called in a robots.txt; also the first word of the user agent.
AGENT = "umm-bench-curation"
NOT_FOR_TRAINING = frozenset({"noai", "noimageai"})
# RFC 9309: a crawler parses at least 500 KiB and keeps a copy for at most a day.
MAX_ROBOTS_BYTES = 500 * 1024
KEEP_SECONDS = 24 * 3600.0
KEEP_FAILURE_SECONDS = 600.0
KEEP_HOSTS = 50_000
# Directives that have a colon of their own; before any other colon stands the name of an agent.
VALUED = frozenset({"unavailable_after", "max-snippet", "max-image-preview", "max-video-preview"})


@dataclass(frozen=True)
class SiteRules:
    """A site's robots.txt. ``failure`` says why there is none to go by, and then nothing may be fetched."""

    rules: Protego | None = None
    failure: Rejected | None = None

    def check(self, target: Target) -> None:
        """
        Raises:
            Rejected: ``fetch_robots_denied``, or the reason for which there was no robots.txt to be had.
        """
        if self.failure is not None:
            raise NotNow(self.failure.reason, self.failure.detail, transient=self.failure.transient)
        if self.rules is not None and not self.rules.can_fetch(target.url, AGENT):
            raise Rejected("fetch_robots_denied", target.url)

    @property
    def delay(self) -> float:
        """Seconds between two requests that the site asks for."""
        if self.rules is None:
            return 0.0
        rate = self.rules.request_rate(AGENT)
        asked = float(self.rules.crawl_delay(AGENT) or 0.0)
        return max(asked, rate.seconds / rate.requests if rate and rate.requests else 0.0)


class RobotsCache:
    """One download of robots.txt a site and day, however many threads ask.

    Args:
        download: the body at a URL, empty where there is none; raises `Rejected`.
    """

    def __init__(self, download: Callable[[str], bytes]) -> None:
        self._download = download
        self._lock = threading.Lock()
        self._known: OrderedDict[str, tuple[float, SiteRules]] = OrderedDict()
        self._loading: dict[str, threading.Lock] = {}

    def rules(self, target: Target) -> SiteRules:
        origin = target.origin
        with self._lock:
            loading = self._loading.setdefault(origin, threading.Lock())
        with loading:
            found = self._fresh(origin)
            if found is None:
                found = self._load(origin)
                self._keep(origin, found)
        with self._lock:
            self._loading.pop(origin, None)
        return found

    def _fresh(self, origin: str) -> SiteRules | None:
        with self._lock:
            until, found = self._known.get(origin, (0.0, None))
        return found if time.monotonic() < until else None

    def _keep(self, origin: str, found: SiteRules) -> None:
        seconds = KEEP_FAILURE_SECONDS if found.failure else KEEP_SECONDS
        with self._lock:
            self._known[origin] = (time.monotonic() + seconds, found)
            self._known.move_to_end(origin)
            while len(self._known) > KEEP_HOSTS:
                self._known.popitem(last=False)

    def _load(self, origin: str) -> SiteRules:
        try:
            body = self._download(f"{origin}/robots.txt")
        except Rejected as rejection:
            # A site that is down or misbehaves has not said that we may.
            return SiteRules(failure=rejection)
        return SiteRules(Protego.parse(body.decode("utf-8-sig", "replace")))


def check_robots_tag(values: Iterable[str]) -> None:
    """The X-Robots-Tag headers of a response: ``noai``, ``noimageai, noindex``, ``umm-bench-curation: noai``.

    Raises:
        Rejected: ``fetch_noai``.
    """
    for value in values:
        agent = "*"
        for part in value.lower().split(","):
            name, colon, rest = part.partition(":")
            if colon and name.strip() not in VALUED:
                agent, part = name.strip(), rest
            if agent in ("*", AGENT) and part.strip() in NOT_FOR_TRAINING:
                raise Rejected("fetch_noai", value)
