"""Which addresses, schemes and servers are refused, whatever a URL looks like."""

from __future__ import annotations

import socket
import subprocess
import threading
import time
from http.server import ThreadingHTTPServer

import pytest

from curation.web import safe_http
from curation.web.fetch import FetchPolicy
from curation.web.safe_http import is_public
from tests.curation.web import IMAGE, Handler, refusal, serving


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
