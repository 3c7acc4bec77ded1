"""A web site on the loopback whose pages misbehave, each in its own way, and a policy that may go there."""

from __future__ import annotations

import threading
import time
from collections import Counter
from contextlib import contextmanager, suppress
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest

from curation.errors import Rejected
from curation.web.fetch import Fetcher, FetchPolicy
from tests.curation.conftest import encoded, picture

IMAGE = encoded(picture(0, 16, 16), "PNG")
LOCAL = FetchPolicy(
    max_bytes=10_000, timeout=1.0, allow_private=True, backoff=0.01, host_delay=0.0, host_concurrency=8, max_wait=2.0
)


class Handler(BaseHTTPRequestHandler):
    """What a path asks for; ``server.robots`` is the robots.txt: text, a status, or None for 404."""

    def do_GET(self):
        site = self.server
        path = self.path.split("?")[0]
        with site.lock:
            site.seen[path] += 1
            site.agents.add(self.headers["User-Agent"])
            site.times.append(time.monotonic())
        with suppress(OSError):
            self.answer(path)

    def answer(self, path: str):
        kind, body, extra, status = "image/png", IMAGE, {}, 200
        match path:
            case "/robots.txt":
                kind, robots = "text/plain", self.server.robots
                status = robots if isinstance(robots, int) else 404 if robots is None else 200
                body = robots.encode() if isinstance(robots, str) else b""
            case "/big":
                body = IMAGE + b"p" * 20_000
            case "/endless":
                self.send_response(200)
                self.end_headers()
                self.wfile.write(IMAGE)
                for _ in range(1000):
                    self.wfile.write(b"p" * 1000)
                return
            case "/drip":
                self.send_response(200)
                self.end_headers()
                for _ in range(40):
                    self.wfile.write(b"\x89PNG\r\n\x1a\n")
                    time.sleep(0.1)
                return
            case "/cut":
                self.send_response(200)
                self.send_header("Content-Length", "5000")
                self.end_headers()
                self.wfile.write(IMAGE)
                return
            case "/html":
                body = b"<html><body>no picture here</body></html>"
            case "/gone":
                status = 404
            case "/limited":
                status, extra = 429, {"Retry-After": "60"}
            case "/broken":
                status = 500
            case "/flaky":
                status = 503 if self.server.seen[path] == 1 else 200
            case "/picture":
                body = encoded(picture(int(self.path.split("?")[1])))
            case "/sometimes":
                status = 503 if self.server.down else 200
                body = encoded(picture(int(self.path.split("?")[1])))
            case "/noai":
                extra = {"X-Robots-Tag": "noindex, noimageai"}
            case "/slow":
                site = self.server
                with site.lock:
                    site.now += 1
                    site.most = max(site.most, site.now)
                time.sleep(0.15)
                with site.lock:  # before the client can know that it has its answer, and send the next request
                    site.now -= 1
            case "/loop":
                status, extra = 302, {"Location": "/loop"}
            case "/hop":
                status, extra = 302, {"Location": "/good?a=b c"}
            case "/file":
                status, extra = 302, {"Location": "file:///etc/passwd"}
            case "/away":
                status, extra = 302, {"Location": self.server.away}
        self.send_response(status)
        self.send_header("Content-Type", kind)
        self.send_header("Content-Length", str(len(body)))
        for name, value in extra.items():
            self.send_header(name, value)
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_):
        pass


@contextmanager
def serving(host: str = "127.0.0.1", robots: str | int | None = None):
    with ThreadingHTTPServer((host, 0), Handler) as site:
        site.daemon_threads = True
        site.lock, site.seen, site.agents, site.times = threading.Lock(), Counter(), set(), []
        site.now = site.most = 0
        site.robots, site.away, site.down = robots, "", False
        site.url = f"http://{host}:{site.server_port}"
        threading.Thread(target=site.serve_forever, args=(0.01,), daemon=True).start()
        yield site
        site.shutdown()


def refusal(url: str, policy: FetchPolicy = LOCAL) -> Rejected:
    fetcher = Fetcher(policy)
    with pytest.raises(Rejected) as rejection:
        fetcher.fetch(url)
    fetcher.close()
    return rejection.value
