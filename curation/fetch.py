"""Downloads from URLs that strangers wrote: http and https only, public addresses only, bounded in bytes and time.

The address is vetted after DNS, and the connection goes to the vetted address itself, so a name that resolves
differently the second time gains nothing. Every redirect starts over. Proxies from the environment are not used.
"""

from __future__ import annotations

import http.client
import ipaddress
import socket
import ssl
import threading
import time
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from urllib.parse import quote, urljoin, urlsplit

from curation.errors import Rejected

MAX_REDIRECTS = 5
READ_BYTES = 64 * 1024
USER_AGENT = "umm-bench-curation/0.1 (research dataset mining; obeys X-Robots-Tag: noai, noimageai)"
# Reach IPv4 through IPv6: the address inside is what counts, and it is simpler to refuse them all.
TRANSLATED = tuple(ipaddress.ip_network(n) for n in ("64:ff9b::/96", "64:ff9b:1::/48", "2002::/16", "2001::/32"))


@dataclass(frozen=True)
class FetchPolicy:
    """Limits of one download. ``allow_private`` is for tests and for mirrors inside one's own network."""

    max_bytes: int = 20_000_000
    timeout: float = 10.0
    contact: str = ""
    allow_private: bool = False

    @property
    def user_agent(self) -> str:
        return f"{USER_AGENT} contact: {self.contact}" if self.contact else USER_AGENT


def fetch(url: str, policy: FetchPolicy) -> bytes:
    """Bytes of an image.

    Raises:
        Rejected: ``fetch_scheme``, ``fetch_bad_url``, ``fetch_private_address``, ``fetch_dns``,
            ``fetch_timeout``, ``fetch_connection``, ``fetch_redirects``, ``fetch_http_4xx`` (or 5xx),
            ``fetch_noai``, ``fetch_not_image``, ``fetch_too_large``.
    """
    deadline = time.monotonic() + policy.timeout
    try:
        for _ in range(MAX_REDIRECTS + 1):
            found = fetch_once(url, policy, deadline)
            if time.monotonic() >= deadline:
                raise TimeoutError  # the watchdog's cut looks like the end of the body
            if isinstance(found, bytes):
                return found
            url = urljoin(url, found)
        raise Rejected("fetch_redirects", url)
    except TimeoutError:
        raise Rejected("fetch_timeout", url) from None
    except (OSError, http.client.HTTPException, ValueError) as error:
        # The watchdog closes the socket under a reader that overruns, which looks like a broken connection.
        late = time.monotonic() >= deadline
        raise Rejected("fetch_timeout" if late else "fetch_connection", f"{url}: {error!r}") from None


def fetch_all(urls: Sequence[str], policy: FetchPolicy, workers: int) -> list[bytes | Rejected]:
    """One result a URL, in order."""

    def one(url: str) -> bytes | Rejected:
        try:
            return fetch(url, policy)
        except Rejected as rejection:
            return rejection

    if not urls:
        return []
    with ThreadPoolExecutor(max_workers=workers) as pool:
        return list(pool.map(one, urls))


def fetch_once(url: str, policy: FetchPolicy, deadline: float) -> bytes | str:
    """The body, or the address that a redirect names."""
    try:
        parts = urlsplit(url)
        port = parts.port
    except ValueError as error:
        raise Rejected("fetch_bad_url", str(error)) from None
    if parts.scheme not in ("http", "https"):
        raise Rejected("fetch_scheme", parts.scheme[:20])
    if not parts.hostname:
        raise Rejected("fetch_bad_url", url)
    target = quote(parts.path or "/", safe="/%:@!$&'()*+,;=~-._") + (
        "?" + quote(parts.query, safe="/%:@!$&'()*+,;=~-._?") if parts.query else ""
    )
    connection = http.client.HTTPConnection(parts.hostname, port or (443 if parts.scheme == "https" else 80))
    sock = connect(parts.hostname, connection.port, policy, deadline)
    with watchdog(sock, deadline):
        try:
            if parts.scheme == "https":
                sock = ssl.create_default_context().wrap_socket(sock, server_hostname=parts.hostname)
            connection.sock = sock
            connection.request(
                "GET",
                target,
                # No compression: the byte limit then bounds what is held in memory.
                headers={"User-Agent": policy.user_agent, "Accept": "image/*", "Accept-Encoding": "identity"},
            )
            return read_response(connection.getresponse(), policy, deadline)
        finally:
            connection.close()
            sock.close()


def read_response(response: http.client.HTTPResponse, policy: FetchPolicy, deadline: float) -> bytes | str:
    location = response.getheader("Location")
    if response.status in (301, 302, 303, 307, 308) and location:
        return location
    if response.status != 200:
        raise Rejected(f"fetch_http_{response.status // 100}xx", str(response.status))
    robots = ",".join(response.headers.get_all("X-Robots-Tag") or []).lower()
    if any(word in robots for word in ("noai", "noimageai")):
        raise Rejected("fetch_noai")
    # Servers often give no type or a generic one; only what says it is text is refused unread.
    if response.headers.get_content_maintype() == "text" and response.getheader("Content-Type"):
        raise Rejected("fetch_not_image", response.headers.get_content_type())
    length = response.getheader("Content-Length", "")
    if length.isdigit() and int(length) > policy.max_bytes:
        raise Rejected("fetch_too_large", length)
    body = bytearray()
    while chunk := response.read1(READ_BYTES):
        body += chunk
        if len(body) > policy.max_bytes:
            raise Rejected("fetch_too_large")
        if time.monotonic() > deadline:
            raise TimeoutError
    if length.isdigit() and len(body) < int(length):
        raise Rejected("fetch_incomplete", f"{len(body)} of {length} bytes")
    return bytes(body)


def connect(host: str, port: int, policy: FetchPolicy, deadline: float) -> socket.socket:
    """A connection to the first address that answers; refused if any address of the name is not public."""
    try:
        found = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)
    except (socket.gaierror, UnicodeError) as error:
        raise Rejected("fetch_dns", f"{host[:100]}: {error}") from None
    if not policy.allow_private and not all(is_public(str(entry[4][0])) for entry in found):
        raise Rejected("fetch_private_address", host)
    failure: OSError = OSError("no address")
    for family, kind, protocol, _, address in found:
        remaining = deadline - time.monotonic()
        if remaining <= 0:
            raise TimeoutError
        sock = socket.socket(family, kind, protocol)
        sock.settimeout(remaining)
        try:
            sock.connect(address)
        except OSError as error:
            sock.close()
            failure = error
        else:
            return sock
    raise failure


def is_public(address: str) -> bool:
    """Whether an address is on the open internet: not private, loopback, link-local (cloud metadata), ..."""
    ip = ipaddress.ip_address(address.split("%")[0])
    if isinstance(ip, ipaddress.IPv6Address):
        if ip.ipv4_mapped is not None:
            ip = ip.ipv4_mapped
        elif any(ip in network for network in TRANSLATED):
            return False
    return ip.is_global and not ip.is_multicast


@contextmanager
def watchdog(sock: socket.socket, deadline: float) -> Iterator[None]:
    """Ends a connection at the deadline even while a server drips one header byte a second."""

    def end() -> None:
        # On a duplicate of the descriptor, as TLS wrapping detaches ``sock`` from its own.
        with suppress(OSError):  # closed by the other side already
            closer.shutdown(socket.SHUT_RDWR)

    closer = sock.dup()
    timer = threading.Timer(max(0.0, deadline - time.monotonic()), end)
    timer.daemon = True
    timer.start()
    try:
        yield
    finally:
        timer.cancel()
        timer.join()
        closer.close()
