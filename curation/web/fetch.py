"""Image downloads for a build: safe (`safe_http`), polite (`robots`, `politeness`), with retries, in many threads."""

from __future__ import annotations

import random
import threading
import time
from collections import defaultdict
from collections.abc import Callable, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from functools import cache
from http.client import HTTPResponse
from itertools import chain, zip_longest
from urllib.parse import urljoin

from curation.errors import Rejected
from curation.web.politeness import HostGate, NotNow
from curation.web.robots import AGENT, MAX_ROBOTS_BYTES, RobotsCache, check_robots_tag
from curation.web.safe_http import Target, parse_url, read_body, request

MAX_REDIRECTS = 5
USER_AGENT = f"{AGENT}/0.1 (research dataset mining; obeys robots.txt and X-Robots-Tag: noai, noimageai)"
REDIRECTS = frozenset({301, 302, 303, 307, 308})
TRANSIENT_STATUS = frozenset({408, 425, 429, 500, 502, 503, 504})
SIGNATURES = (b"\xff\xd8\xff", b"\x89PNG\r\n\x1a\n", b"GIF87a", b"GIF89a", b"BM")


@dataclass(frozen=True)
class FetchPolicy:
    """How downloads are made.

    Args:
        max_bytes: of one image.
        timeout: seconds on the network for one attempt, redirects included; waiting for a turn does not count.
        workers: downloads at a time.
        retries: further attempts after a transient failure.
        backoff: seconds before the first of them; doubles each time, give or take a half.
        host_delay: seconds between the starts of two requests to one host that asks for no more.
        host_concurrency, max_wait: see `HostGate`.
        share: processes that download for the same build; each keeps the hosts' wishes for all of them.
        contact: who runs this, sent in the user agent.
        allow_private: reach private addresses as well: for tests, and for mirrors inside one's own network.
    """

    max_bytes: int = 20_000_000
    timeout: float = 10.0
    workers: int = 32
    retries: int = 1
    backoff: float = 1.0
    host_delay: float = 0.25
    host_concurrency: int = 2
    max_wait: float = 20.0
    share: int = 1
    contact: str = ""
    allow_private: bool = False

    @property
    def user_agent(self) -> str:
        return f"{USER_AGENT} contact: {self.contact}" if self.contact else USER_AGENT


class Fetcher:
    """Downloads that share robots.txt and turns at hosts. Thread-safe; keep one for a whole build."""

    def __init__(self, policy: FetchPolicy) -> None:
        self._policy = policy
        self._gate = HostGate(max(1, policy.host_concurrency // policy.share), policy.max_wait)
        self._robots = RobotsCache(self._download_robots)
        self._pool = ThreadPoolExecutor(policy.workers, thread_name_prefix="fetch")

    def start(self, urls: Sequence[str]) -> list[Future[bytes]]:
        """Queues downloads; a future gives what `fetch` returns or raises. Hosts take turns in the queue."""
        futures: dict[int, Future[bytes]] = {i: self._pool.submit(self._queued, urls[i]) for i in interleave(urls)}
        return [futures[index] for index in range(len(urls))]

    def fetch_all(self, urls: Sequence[str]) -> list[bytes | Rejected]:
        """One result a URL, in order."""
        return [outcome(future) for future in self.start(urls)]

    def close(self) -> None:
        self._pool.shutdown(cancel_futures=True)

    def fetch(self, url: str) -> bytes:
        """Bytes that begin like an image.

        Raises:
            Rejected: ``fetch_scheme``, ``fetch_bad_url``, ``fetch_private_address``, ``fetch_dns``, ``fetch_tls``,
                ``fetch_redirects``, ``fetch_http_3xx``, ``fetch_http_4xx``, ``fetch_robots_denied``, ``fetch_noai``,
                ``fetch_not_image``, ``fetch_too_large``. Transient, after the retries: ``fetch_timeout``,
                ``fetch_connection``, ``fetch_incomplete``, ``fetch_dns``, ``fetch_http_4xx`` (408, 425, 429),
                ``fetch_http_5xx``, ``fetch_robots_unavailable``, ``fetch_host_busy``.
        """
        return self._persist(lambda: self._follow(url, self._read_image, accept="image/*", check=True))

    def _queued(self, url: str) -> bytes:
        # The pool works off its queue before the interpreter may exit; after Ctrl-C nobody wants the rest.
        if not threading.main_thread().is_alive():
            raise Rejected("fetch_stopped", url, transient=True)
        return self.fetch(url)

    def _persist(self, attempt: Callable[[], bytes]) -> bytes:
        """Tries again, later and later, after transient failures."""
        for past in range(self._policy.retries):
            try:
                return attempt()
            except Rejected as rejection:
                if not rejection.transient or isinstance(rejection, NotNow):
                    raise
            time.sleep(self._policy.backoff * 2**past * random.uniform(0.5, 1.5))
        return attempt()

    def _download_robots(self, url: str) -> bytes:
        return self._persist(lambda: self._follow(url, read_robots, accept="text/plain", check=False))

    def _follow(self, url: str, read: Callable[[HTTPResponse, float], bytes], *, accept: str, check: bool) -> bytes:
        """What ``read`` takes from the response that is no redirect; every hop is vetted from the start.

        Args:
            check: ask robots.txt at every hop, and keep the distance between requests.
        """
        left = self._policy.timeout
        for _ in range(MAX_REDIRECTS + 1):
            target = parse_url(url)
            delay = 0.0
            if check:
                rules = self._robots.rules(target)
                rules.check(target)
                delay = max(rules.delay, self._policy.host_delay) * self._policy.share
            with self._gate.turn(target.host, delay):
                begun = time.monotonic()
                deadline = begun + left
                with request(
                    target,
                    user_agent=self._policy.user_agent,
                    accept=accept,
                    deadline=deadline,
                    allow_private=self._policy.allow_private,
                ) as response:
                    location = response.getheader("Location")
                    if response.status not in REDIRECTS or not location:
                        self._heed_retry_after(target, response)
                        return read(response, deadline)
                left -= time.monotonic() - begun
            url = join(target, location)
        raise Rejected("fetch_redirects", url)

    def _heed_retry_after(self, target: Target, response: HTTPResponse) -> None:
        if response.status in (429, 503) and (seconds := retry_after(response.getheader("Retry-After"))):
            self._gate.pause(target.host, seconds)

    def _read_image(self, response: HTTPResponse, deadline: float) -> bytes:
        if response.status != 200:
            transient = response.status in TRANSIENT_STATUS
            raise Rejected(f"fetch_http_{response.status // 100}xx", str(response.status), transient=transient)
        check_robots_tag(response.headers.get_all("X-Robots-Tag") or [])
        return read_body(response, self._policy.max_bytes, deadline, check_signature)


def read_robots(response: HTTPResponse, deadline: float) -> bytes:
    """The rules; none where the site says that it has none (RFC 9309, 2.3.1.3: 4xx)."""
    if response.status == 200:
        return response.read(MAX_ROBOTS_BYTES)
    if 400 <= response.status < 500 and response.status != 429:
        return b""
    raise Rejected("fetch_robots_unavailable", f"HTTP {response.status}", transient=True)


@cache
def shared_fetcher(policy: FetchPolicy) -> Fetcher:
    """The process' fetcher for a policy, so that shards share what is known of the hosts."""
    return Fetcher(policy)


def outcome(future: Future[bytes]) -> bytes | Rejected:
    try:
        return future.result()
    except Rejected as rejection:
        return rejection


def interleave(urls: Sequence[str]) -> list[int]:
    """Indices of ``urls`` in an order in which hosts alternate, so that few threads wait for a turn."""
    by_host: defaultdict[str, list[int]] = defaultdict(list)
    for index, url in enumerate(urls):
        by_host["/".join(url.split("/", 3)[:3])].append(index)
    rounds = zip_longest(*by_host.values())
    return [index for index in chain.from_iterable(rounds) if index is not None]


def join(target: Target, location: str) -> str:
    try:
        return urljoin(target.url, location)
    except ValueError as error:
        raise Rejected("fetch_bad_url", str(error)) from None


def retry_after(value: str | None) -> float:
    """Seconds that a Retry-After header asks for: a number, or a date."""
    if value is None:
        return 0.0
    if value.strip().isdecimal():
        return float(value)
    try:
        date = parsedate_to_datetime(value)
        if date.tzinfo is None:
            date = date.replace(tzinfo=UTC)
        return max(0.0, (date - datetime.now(UTC)).total_seconds())
    except (ValueError, OverflowError):
        return 0.0


def check_signature(start: bytes) -> None:
    """Servers' content types are not to be relied on, the first bytes are.

    Raises:
        Rejected: ``fetch_not_image``.
    """
    if start and not (start.startswith(SIGNATURES) or (start[:4] == b"RIFF" and start[8:12] == b"WEBP")):
        raise Rejected("fetch_not_image", repr(start[:12]))
