"""Downloads from servers on the loopback, which the fetcher reaches only where a policy allows it."""

from __future__ import annotations

import io
import socket
import subprocess
import sys
import threading
import time
from contextlib import suppress
from dataclasses import replace

import pytest

from curation.errors import Rejected
from curation.web import fetch as fetch_module
from curation.web import safe_http
from curation.web.fetch import Fetcher
from tests.curation.web import IMAGE, LOCAL, refusal


def test_good_images_arrive_and_the_agent_is_honest(site):
    fetcher = Fetcher(replace(LOCAL, contact="https://lab.example/crawler"))
    assert fetcher.fetch(f"{site.url}/good") == IMAGE
    assert fetcher.fetch(f"{site.url}/hop") == IMAGE
    (agent,) = site.agents
    assert agent.startswith("umm-bench-curation/") and "Mozilla" not in agent
    assert agent.endswith("contact: https://lab.example/crawler")
    assert site.seen["/robots.txt"] == 1  # cached


@pytest.mark.parametrize(
    ("path", "reason", "transient"),
    [
        ("/big", "fetch_too_large", False),
        ("/endless", "fetch_too_large", False),
        ("/cut", "fetch_incomplete", True),
        ("/html", "fetch_not_image", False),
        ("/gone", "fetch_http_4xx", False),
        ("/broken", "fetch_http_5xx", True),
        ("/noai", "fetch_noai", False),
        ("/loop", "fetch_redirects", False),
        ("/file", "fetch_scheme", False),
    ],
)
def test_refusals_have_a_reason(site, path: str, reason: str, transient: bool):
    rejection = refusal(site.url + path)
    assert (rejection.reason, rejection.transient) == (reason, transient)
    if path != "/loop":
        assert site.seen[path] == 1 + transient  # only what may pass is tried again


def test_a_transient_failure_is_tried_again(site, fetcher):
    assert fetcher.fetch(f"{site.url}/flaky") == IMAGE
    assert site.seen["/flaky"] == 2


def test_a_dripping_server_is_left_at_the_deadline(site):
    start = time.monotonic()
    assert refusal(f"{site.url}/drip", replace(LOCAL, timeout=0.5, retries=0)).reason == "fetch_timeout"
    assert time.monotonic() - start < 2


def test_a_server_that_drips_headers_is_left_at_the_deadline():
    with socket.create_server(("127.0.0.1", 0)) as listener:

        def drip():
            while True:
                with suppress(OSError):
                    connection, _ = listener.accept()
                    with connection:
                        connection.sendall(b"HTTP/1.1 200 OK\r\nX: ")
                        for _ in range(60):
                            connection.sendall(b"a")
                            time.sleep(0.05)
                    continue
                return

        threading.Thread(target=drip, daemon=True).start()
        start = time.monotonic()
        url = f"http://127.0.0.1:{listener.getsockname()[1]}/x"
        rejection = refusal(url, replace(LOCAL, timeout=0.5, retries=0))
        assert (rejection.reason, rejection.transient) == ("fetch_timeout", True)
        assert time.monotonic() - start < 2


def test_a_resolver_that_hangs_is_left_at_the_deadline(monkeypatch):
    monkeypatch.setattr(socket, "getaddrinfo", lambda *_, **__: time.sleep(1))
    start = time.monotonic()
    assert refusal("http://slow.example/x", replace(LOCAL, timeout=0.2, retries=0)).reason == "fetch_timeout"
    assert time.monotonic() - start < 0.9


def test_results_keep_the_order(site, fetcher):
    results = fetcher.fetch_all([f"{site.url}/good", f"{site.url}/gone", "file:///x", f"{site.url}/good"])
    assert [r if isinstance(r, bytes) else r.reason for r in results] == [
        IMAGE,
        "fetch_http_4xx",
        "fetch_scheme",
        IMAGE,
    ]


def test_the_body_is_sniffed_before_it_is_read(site):
    """A stream that is no image is left at its first bytes, long before the size limit."""
    response = io.BytesIO(b"<html>" + b"x" * 5_000_000)

    class Response:
        status, headers = 200, {}
        read1 = staticmethod(response.read)

        def getheader(self, name, default=None):
            return default

    with pytest.raises(Rejected, match="fetch_not_image"):
        safe_http.read_body(Response(), 10_000_000, time.monotonic() + 1, fetch_module.check_signature)
    assert response.tell() <= safe_http.READ_BYTES


def test_a_program_that_ends_leaves_its_queue(site):
    """Ctrl-C would otherwise wait for every download that is queued."""
    code = (
        "import sys; from curation.web.fetch import Fetcher, FetchPolicy\n"
        "policy = FetchPolicy(allow_private=True, workers=2, host_delay=0.0)\n"
        "Fetcher(policy).start([sys.argv[1]] * 40)[0].result()"
    )
    subprocess.run([sys.executable, "-c", code, f"{site.url}/slow"], check=True, timeout=30)
    assert 1 <= site.seen["/slow"] <= 6
