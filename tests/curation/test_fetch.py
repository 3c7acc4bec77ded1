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
from http.server import ThreadingHTTPServer
from itertools import pairwise

import pytest

from curation import fetch as fetch_module
from curation import safe_http
from curation.errors import Rejected
from curation.fetch import Fetcher, FetchPolicy, interleave, retry_after
from curation.politeness import HostGate, NotNow
from curation.robots import check_robots_tag
from curation.safe_http import is_public
from tests.curation.web import IMAGE, Handler, serving

LOCAL = FetchPolicy(
    max_bytes=10_000, timeout=1.0, allow_private=True, backoff=0.01, host_delay=0.0, host_concurrency=8, max_wait=2.0
)
SITES = ("127.0.0.1", "127.0.0.2", "127.0.0.3")


@pytest.fixture
def site():
    with serving() as running:
        yield running


@pytest.fixture
def fetcher():
    made = Fetcher(LOCAL)
    yield made
    made.close()


def refusal(url: str, policy: FetchPolicy = LOCAL) -> Rejected:
    fetcher = Fetcher(policy)
    with pytest.raises(Rejected) as rejection:
        fetcher.fetch(url)
    fetcher.close()
    return rejection.value


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


@pytest.mark.parametrize("host", ["127.0.0.1", "localhost", "2130706433", "0x7f.1", "[::1]", "[::ffff:127.0.0.1]"])
def test_the_loopback_is_refused_by_default_in_any_spelling(site, host: str):
    assert refusal(f"http://{host}:{site.server_port}/good", FetchPolicy()).reason == "fetch_private_address"
    assert not site.seen


def fake_names(monkeypatch, names: dict[str, list[list[str]]]) -> list[str]:
    """DNS that gives a name's addresses in turn; returns the list of what was asked."""
    asked: list[str] = []
    real = socket.getaddrinfo

    def resolve(host, port, *args, **kwargs):
        if host not in names:
            return real(host, port, *args, **kwargs)
        asked.append(host)
        answers = names[host]
        addresses = answers.pop(0) if len(answers) > 1 else answers[0]
        return [entry for address in addresses for entry in real(address, port, *args, **kwargs)]

    monkeypatch.setattr(socket, "getaddrinfo", resolve)
    return asked


def test_a_name_with_one_private_address_is_refused(monkeypatch):
    fake_names(monkeypatch, {"mixed.example": [["93.184.216.34", "10.0.0.5"]]})
    assert refusal("http://mixed.example/x", FetchPolicy()).reason == "fetch_private_address"


def test_the_connection_goes_to_the_address_that_was_checked(site, monkeypatch):
    """A name that turns private after the check gains nothing, as it is asked once for each connection."""
    asked = fake_names(monkeypatch, {"rebinding.example": [["127.0.0.1"], ["127.0.0.9"]]})
    connected: list[tuple] = []
    real = socket.socket.connect
    monkeypatch.setattr(
        socket.socket, "connect", lambda self, address: connected.append(address) or real(self, address)
    )
    target = safe_http.parse_url(f"http://rebinding.example:{site.server_port}/good")
    with safe_http.request(
        target, user_agent="test", accept="*/*", deadline=time.monotonic() + 1, allow_private=True
    ) as response:
        assert response.status == 200
    assert asked == ["rebinding.example"]
    assert connected == [("127.0.0.1", site.server_port)]


def test_redirects_are_vetted_again(site, monkeypatch):
    """The first server counts as public here, and sends us to the loopback."""
    with serving("127.0.0.2") as inside:
        site.away = f"{inside.url}/good"
        monkeypatch.setattr(safe_http, "is_public", lambda address: address != "127.0.0.2")
        assert refusal(f"{site.url}/away", FetchPolicy()).reason == "fetch_private_address"
        assert not inside.seen and site.seen["/away"] == 1


@pytest.mark.parametrize("url", ["file:///etc/passwd", "ftp://example.com/x", "data:image/png;base64,AA", "/etc/x", ""])
def test_other_schemes_are_refused(url: str):
    assert refusal(url).reason == "fetch_scheme"


@pytest.mark.parametrize(
    "url",
    ["http://", "http://[::1", "http://a:b/", "http://x.example/" + "a" * 9000, "http://" + "a" * 70 + ".example/"],
)
def test_bad_urls_are_refused(url: str):
    assert refusal(url).reason == "fetch_bad_url"


def test_control_characters_do_not_reach_the_request(site, fetcher):
    assert fetcher.fetch(f"{site.url}/good?\r\nHost: evil\x00é") == IMAGE


@pytest.mark.parametrize(
    ("address", "public"),
    [
        ("8.8.8.8", True),
        ("2606:4700::1111", True),
        ("10.0.0.1", False),
        ("100.64.0.1", False),
        ("100.100.100.200", False),
        ("192.168.1.1", False),
        ("169.254.169.254", False),
        ("168.63.129.16", False),
        ("0.0.0.0", False),
        ("224.0.0.1", False),
        ("255.255.255.255", False),
        ("::", False),
        ("::1", False),
        ("::127.0.0.1", False),
        ("::ffff:127.0.0.1", False),
        ("::ffff:169.254.169.254", False),
        ("64:ff9b::7f00:1", False),
        ("2002:7f00:1::", False),
        ("fe80::1%eth0", False),
        ("fec0::1", False),
        ("fd00:ec2::254", False),
    ],
)
def test_public_addresses(address: str, public: bool):
    assert is_public(address) is public


def test_results_keep_the_order(site, fetcher):
    results = fetcher.fetch_all([f"{site.url}/good", f"{site.url}/gone", "file:///x", f"{site.url}/good"])
    assert [r if isinstance(r, bytes) else r.reason for r in results] == [
        IMAGE,
        "fetch_http_4xx",
        "fetch_scheme",
        IMAGE,
    ]


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
    fetcher = Fetcher(replace(LOCAL, host_delay=0.1))
    assert fetcher.fetch_all([f"{site.url}/good"] * 4) == [IMAGE] * 4
    images = site.times[1:]  # the first is robots.txt
    assert min(b - a for a, b in pairwise(images)) > 0.08


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
    monkeypatch.setattr("curation.politeness.KEEP_HOSTS", 10)
    gate = HostGate(concurrency=1, max_wait=1.0)
    with gate.turn("busy", 0.0):
        for index in range(50):
            with gate.turn(f"host{index}", 0.0):
                pass
        assert len(gate._hosts) <= 12 and "busy" in gate._hosts


def test_a_certificate_of_a_stranger_is_refused_for_good(tmp_path):
    """A TLS server that nobody vouches for: no retry, and nothing is sent."""
    import ssl

    certificate, key = tmp_path / "c.pem", tmp_path / "k.pem"
    command = ["openssl", "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "1", "-subj", "/CN=localhost"]
    try:
        subprocess.run([*command, "-keyout", key, "-out", certificate], check=True, capture_output=True)
    except FileNotFoundError:
        pytest.skip("no openssl command to make a certificate with")
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(certificate, key)
    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as httpd:
        httpd.socket = context.wrap_socket(httpd.socket, server_side=True)
        httpd.daemon_threads = True
        httpd.handle_error = lambda *_: None
        threading.Thread(target=httpd.serve_forever, args=(0.01,), daemon=True).start()
        rejection = refusal(f"https://localhost:{httpd.server_port}/good")
        assert (rejection.reason, rejection.transient) == ("fetch_tls", False)
        httpd.shutdown()


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
        "import sys; from curation.fetch import Fetcher, FetchPolicy\n"
        "policy = FetchPolicy(allow_private=True, workers=2, host_delay=0.0)\n"
        "Fetcher(policy).start([sys.argv[1]] * 40)[0].result()"
    )
    subprocess.run([sys.executable, "-c", code, f"{site.url}/slow"], check=True, timeout=30)
    assert 1 <= site.seen["/slow"] <= 6
