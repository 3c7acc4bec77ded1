"""Downloads from servers on the loopback, which the fetcher reaches only where a policy allows it."""

from __future__ import annotations

import socket
import threading
import time
from contextlib import suppress
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest

from curation.errors import Rejected
from curation.fetch import FetchPolicy, fetch, fetch_all, is_public

LOCAL = FetchPolicy(max_bytes=10_000, timeout=1.0, allow_private=True)
agents: list[str] = []


class Handler(BaseHTTPRequestHandler):
    def do_GET(self):
        agents.append(self.headers["User-Agent"])
        kind, body, extra, status = "image/png", b"p" * 100, {}, 200
        match self.path:
            case "/big":
                body = b"p" * 20_000
            case "/endless":
                self.send_response(200)
                self.end_headers()
                with suppress(OSError):
                    for _ in range(1000):
                        self.wfile.write(b"p" * 1000)
                return
            case "/slow":
                self.send_response(200)
                self.end_headers()
                for _ in range(40):
                    try:
                        self.wfile.write(b"p")
                    except OSError:
                        return
                    time.sleep(0.1)
                return
            case "/text":
                kind = "text/html"
            case "/gone":
                status = 404
            case "/noai":
                extra = {"X-Robots-Tag": "noimageai"}
            case "/loop":
                status, extra = 302, {"Location": "/loop"}
            case "/hop":
                status, extra = 302, {"Location": "/good?a=b c"}
            case "/file":
                status, extra = 302, {"Location": "file:///etc/passwd"}
        self.send_response(status)
        self.send_header("Content-Type", kind)
        self.send_header("Content-Length", str(len(body)))
        for name, value in extra.items():
            self.send_header(name, value)
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_):
        pass


@pytest.fixture(scope="module")
def server():
    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as httpd:
        httpd.daemon_threads = True
        threading.Thread(target=httpd.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{httpd.server_port}"
        httpd.shutdown()


def reason(url: str, policy: FetchPolicy = LOCAL) -> str:
    with pytest.raises(Rejected) as rejection:
        fetch(url, policy)
    return rejection.value.reason


def test_good_images_arrive_and_the_agent_is_honest(server):
    assert fetch(f"{server}/good", LOCAL) == b"p" * 100
    assert fetch(f"{server}/hop", LOCAL) == b"p" * 100
    assert "umm-bench" in agents[-1] and "Mozilla" not in agents[-1]


@pytest.mark.parametrize(
    ("path", "expected"),
    [
        ("/big", "fetch_too_large"),
        ("/endless", "fetch_too_large"),
        ("/text", "fetch_not_image"),
        ("/gone", "fetch_http_4xx"),
        ("/noai", "fetch_noai"),
        ("/loop", "fetch_redirects"),
        ("/file", "fetch_scheme"),
    ],
)
def test_refusals_have_a_reason(server, path: str, expected: str):
    assert reason(server + path) == expected


def test_a_dripping_server_is_left_at_the_deadline(server):
    start = time.monotonic()
    assert reason(f"{server}/slow") == "fetch_timeout"
    assert time.monotonic() - start < 3


def test_a_server_that_drips_headers_is_left_at_the_deadline():
    with socket.create_server(("127.0.0.1", 0)) as listener:

        def drip():
            connection, _ = listener.accept()
            with connection:
                connection.sendall(b"HTTP/1.1 200 OK\r\nX: ")
                for _ in range(60):
                    try:
                        connection.sendall(b"a")
                    except OSError:
                        return
                    time.sleep(0.1)

        threading.Thread(target=drip, daemon=True).start()
        start = time.monotonic()
        assert reason(f"http://127.0.0.1:{listener.getsockname()[1]}/x") == "fetch_timeout"
        assert time.monotonic() - start < 3


def test_private_addresses_are_refused_without_connecting(server):
    seen = len(agents)
    assert reason(f"{server}/good", FetchPolicy()) == "fetch_private_address"
    assert reason(server.replace("127.0.0.1", "localhost") + "/good", FetchPolicy()) == "fetch_private_address"
    assert reason("http://169.254.169.254/latest/meta-data", FetchPolicy()) == "fetch_private_address"
    assert reason("http://[::1]/x", FetchPolicy()) == "fetch_private_address"
    assert reason("http://2130706433/x", FetchPolicy()) in ("fetch_private_address", "fetch_dns")
    assert len(agents) == seen


def test_a_redirect_to_a_private_address_is_refused(server, monkeypatch):
    """The first host counts as public here, as a stranger's server would; its redirect leads inside."""
    import curation.fetch as module

    port = server.rpartition(":")[2]
    monkeypatch.setattr(module, "is_public", lambda address: address == "127.0.0.1")
    with ThreadingHTTPServer(("127.0.0.2", 0), Handler) as inside:
        threading.Thread(target=inside.serve_forever, daemon=True).start()
        target = f"http://127.0.0.2:{inside.server_port}/good"
        monkeypatch.setattr(module, "read_response", lambda *_: target)
        assert reason(f"http://127.0.0.1:{port}/good", FetchPolicy()) == "fetch_private_address"
        inside.shutdown()


@pytest.mark.parametrize("url", ["file:///etc/passwd", "ftp://example.com/x", "data:image/png;base64,AA", "/etc/x", ""])
def test_other_schemes_are_refused(url: str):
    assert reason(url) == "fetch_scheme"


@pytest.mark.parametrize(
    ("address", "public"),
    [
        ("8.8.8.8", True),
        ("2606:4700::1111", True),
        ("10.0.0.1", False),
        ("100.64.0.1", False),
        ("192.168.1.1", False),
        ("169.254.169.254", False),
        ("0.0.0.0", False),
        ("224.0.0.1", False),
        ("::ffff:127.0.0.1", False),
        ("64:ff9b::7f00:1", False),
        ("2002:7f00:1::", False),
        ("fe80::1%eth0", False),
        ("fd00:ec2::254", False),
    ],
)
def test_public_addresses(address: str, public: bool):
    assert is_public(address) is public


def test_results_keep_the_order(server):
    results = fetch_all([f"{server}/good", f"{server}/gone", "file:///x", f"{server}/good"], LOCAL, workers=4)
    assert [r if isinstance(r, bytes) else r.reason for r in results] == [
        b"p" * 100,
        "fetch_http_4xx",
        "fetch_scheme",
        b"p" * 100,
    ]
