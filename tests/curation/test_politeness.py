"""Robots.txt and its kin, pauses and turns, against servers on the loopback."""

from __future__ import annotations

import time
from dataclasses import replace
from itertools import pairwise

import pytest

from curation.errors import Rejected
from curation.web.fetch import Fetcher, interleave, retry_after
from curation.web.politeness import HostGate, NotNow
from curation.web.robots import check_robots_tag
from tests.curation.web import IMAGE, LOCAL, refusal, serving

SITES = ("127.0.0.1", "127.0.0.2", "127.0.0.3")


def test_retry_after_leaves_the_host_alone(site, fetcher):
    """A minute is longer than anybody waits: the host gets no further request in this build."""
    first, second = fetcher.fetch_all([f"{site.url}/limited"]) + fetcher.fetch_all([f"{site.url}/good"])
    assert (first.reason, second.reason) == ("fetch_host_busy", "fetch_host_busy")
    assert first.transient and second.transient
    assert site.seen["/limited"] == 1 and site.seen["/good"] == 0


def test_retry_after_is_a_number_or_a_date():
    assert retry_after("3") == 3 and retry_after(None) == retry_after("soon") == 0
    assert retry_after("Wed, 21 Oct 2015 07:28:00 GMT") == 0
    assert retry_after("Wed, 21 Oct 2099 07:28:00 GMT") > 1e9
    for hostile in ("Mon, 01 Jan 2020 00:00:00 +99999999999999999", "Mon, 01 Jan 99999999999999999999 00:00:00 GMT"):
        assert retry_after(hostile) == 0


ROBOTS = """
User-agent: *
Disallow: /

User-agent: umm-bench-curation
Disallow: /private/
Disallow: /*.gif$
Allow: /private/open
"""


def test_robots_txt_is_obeyed():
    with serving(robots=ROBOTS) as site:
        fetcher = Fetcher(LOCAL)
        assert fetcher.fetch(f"{site.url}/good") == fetcher.fetch(f"{site.url}/private/open") == IMAGE
        for path in ("/private/x", "/x.gif"):
            with pytest.raises(Rejected, match="fetch_robots_denied"):
                fetcher.fetch(site.url + path)
        assert site.seen["/robots.txt"] == 1
        assert site.seen["/private/x"] == site.seen["/x.gif"] == 0


@pytest.mark.parametrize(
    ("robots", "reason"),
    [
        ("User-agent: *\nDisallow: /", "fetch_robots_denied"),
        ("\ufeffUser-agent: *\r\nDisallow: /good", "fetch_robots_denied"),
        (None, None),
        (403, None),
        (500, "fetch_robots_unavailable"),
        (429, "fetch_robots_unavailable"),
        ("", None),
    ],
)
def test_robots_txt_that_is_missing_or_failing(robots, reason: str | None):
    with serving(robots=robots) as site:
        if reason is None:
            assert Fetcher(LOCAL).fetch(f"{site.url}/good") == IMAGE
            return
        rejection = refusal(f"{site.url}/good")
        assert (rejection.reason, rejection.transient) == (reason, reason.endswith("unavailable"))
        assert site.seen["/good"] == 0


def test_robots_txt_is_asked_at_every_hop(site):
    with serving("127.0.0.2", robots="User-agent: *\nDisallow: /") as closed:
        site.away = f"{closed.url}/good"
        assert refusal(f"{site.url}/away").reason == "fetch_robots_denied"
        assert closed.seen["/good"] == 0


@pytest.mark.parametrize(
    ("values", "refused"),
    [
        (["noai"], True),
        (["noindex, NoImageAI"], True),
        (["noindex", "noai"], True),
        (["umm-bench-curation: noai"], True),
        (["*: noimageai"], True),
        (["googlebot: noindex, umm-bench-curation: noindex, noai"], True),
        (["max-image-preview: large, noai"], True),
        (["otherbot: noai"], False),
        (["noindex, nofollow"], False),
        (["noaindex"], False),
        ([], False),
    ],
)
def test_robots_tags(values: list[str], refused: bool):
    if not refused:
        check_robots_tag(values)
        return
    with pytest.raises(Rejected, match="fetch_noai"):
        check_robots_tag(values)


def test_a_host_gets_few_requests_at_a_time(site):
    fetcher = Fetcher(replace(LOCAL, host_concurrency=2))
    results = fetcher.fetch_all([f"{site.url}/slow"] * 6)
    assert results == [IMAGE] * 6 and site.most == 2


def test_requests_to_a_host_keep_their_distance(site):
    fetcher = Fetcher(replace(LOCAL, host_delay=0.3))
    assert fetcher.fetch_all([f"{site.url}/good"] * 3) == [IMAGE] * 3
    images = site.times[1:]  # the first is robots.txt
    assert min(b - a for a, b in pairwise(images)) > 0.15  # a request may arrive late, on a busy machine


def test_crawl_delay_is_kept_within_a_bound():
    with serving(robots="User-agent: *\nCrawl-delay: 0.2") as site:
        assert Fetcher(LOCAL).fetch_all([f"{site.url}/good"] * 3) == [IMAGE] * 3
        assert site.times[3] - site.times[1] > 0.35
    with serving("127.0.0.2", robots="User-agent: *\nCrawl-delay: 3600") as site:
        first, second = Fetcher(LOCAL).fetch_all([f"{site.url}/good"] * 2)
        assert [r if isinstance(r, bytes) else r.reason for r in (first, second)].count("fetch_host_busy") == 1
        assert site.seen["/good"] == 1


def test_several_processes_share_a_host():
    gate = Fetcher(replace(LOCAL, host_concurrency=4, share=4))._gate
    with gate.turn("h", 0.0), pytest.raises(NotNow):
        gate._max_wait = 0.05
        gate._enter("h", 0.0)


def test_one_slow_host_does_not_hold_up_the_others():
    """Twelve downloads of 0.15 s from one host, two at a time, beside two quick hosts; four threads."""
    with serving(SITES[0]) as slow, serving(SITES[1]) as quick, serving(SITES[2]) as other:
        fetcher = Fetcher(replace(LOCAL, host_concurrency=2, workers=4))
        urls = [f"{slow.url}/slow"] * 12 + [f"{quick.url}/good"] * 4 + [f"{other.url}/good"] * 4
        start = time.monotonic()
        done: list[float] = []
        futures = fetcher.start(urls)
        for future in futures[12:]:
            future.add_done_callback(lambda _: done.append(time.monotonic()))
        assert all(future.result() == IMAGE for future in futures)
        whole = time.monotonic() - start
        assert len(done) == 8 and max(done) - start < 0.7 * whole


def test_urls_are_taken_host_by_host_in_turn():
    urls = ["http://a/1", "http://a/2", "http://a/3", "http://b/1", "http://c/1", "http://b/2"]
    assert [urls[i] for i in interleave(urls)] == [
        "http://a/1", "http://b/1", "http://c/1", "http://a/2", "http://b/2", "http://a/3"
    ]  # fmt: skip


def test_idle_hosts_are_forgotten(monkeypatch):
    monkeypatch.setattr("curation.web.politeness.KEEP_HOSTS", 10)
    gate = HostGate(concurrency=1, max_wait=1.0)
    with gate.turn("busy", 0.0):
        for index in range(50):
            with gate.turn(f"host{index}", 0.0):
                pass
        assert len(gate._hosts) <= 12 and "busy" in gate._hosts
