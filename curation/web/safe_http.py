"""One HTTP request to a URL that a stranger wrote: http and https only, public addresses, bounded in bytes and time.

The address is vetted after DNS, and the connection goes to the vetted address itself, so a name that resolves
differently the second time gains nothing. Redirects are not followed here. Proxies from the environment are not used.
"""

from __future__ import annotations

import http.client
import ipaddress
import socket
import ssl
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from functools import cache
from urllib.parse import quote, urlsplit

from curation.errors import Rejected

READ_BYTES = 64 * 1024
MAX_URL_CHARS = 8192
DNS_THREADS = 32
PORTS = {"http": 80, "https": 443}
REFUSED = tuple(
    ipaddress.ip_network(network)
    for network in (
        # IPv4 inside IPv6: the address inside is what counts, and it is simpler to refuse them all.
        *("::/96", "64:ff9b::/96", "64:ff9b:1::/48", "2002::/16", "2001::/32"),
        "fec0::/10",  # site-local
        "168.63.129.16/32",  # Azure's metadata service, at a public address
    )
)


@dataclass(frozen=True)
class Target:
    """A URL taken apart. ``path`` is what the request line holds."""

    scheme: str
    host: str
    port: int
    path: str

    @property
    def origin(self) -> str:
        return f"{self.scheme}://{self.netloc}"

    @property
    def url(self) -> str:
        return self.origin + self.path

    @property
    def netloc(self) -> str:
        host = f"[{self.host}]" if ":" in self.host else self.host
        return host if self.port == PORTS[self.scheme] else f"{host}:{self.port}"


def parse_url(url: str) -> Target:
    """
    Raises:
        Rejected: ``fetch_scheme``, ``fetch_bad_url``.
    """
    try:
        parts = urlsplit(url)
        port = parts.port
    except ValueError as error:
        raise Rejected("fetch_bad_url", str(error)) from None
    if parts.scheme not in PORTS:
        raise Rejected("fetch_scheme", parts.scheme[:20])
    if not parts.hostname or len(url) > MAX_URL_CHARS:
        raise Rejected("fetch_bad_url", url)
    try:
        host = parts.hostname if ":" in parts.hostname else parts.hostname.encode("idna").decode()
        path = quote(parts.path or "/", safe="/%:@!$&'()*+,;=~-._")
        query = "?" + quote(parts.query, safe="/%:@!$&'()*+,;=~-._?") if parts.query else ""
    except UnicodeError as error:
        raise Rejected("fetch_bad_url", str(error)) from None
    return Target(parts.scheme, host, port or PORTS[parts.scheme], path + query)


@contextmanager
def request(
    target: Target, *, user_agent: str, accept: str, deadline: float, allow_private: bool
) -> Iterator[http.client.HTTPResponse]:
    """The response to a GET, its body unread.

    Args:
        deadline: on `time.monotonic`'s clock, for everything up to the end of the block.
        allow_private: reach addresses that are not public as well.

    Raises:
        Rejected: ``fetch_dns``, ``fetch_private_address``, ``fetch_tls``, ``fetch_bad_url``, and as transient
            ``fetch_dns``, ``fetch_timeout``, ``fetch_connection``.
    """
    try:
        sock = connect(target.host, target.port, deadline, allow_private)
        with watchdog(sock, deadline):
            connection = http.client.HTTPConnection(target.host, target.port)
            try:
                if target.scheme == "https":
                    sock = tls_context().wrap_socket(sock, server_hostname=target.host)
                connection.sock = sock
                # No compression: the byte limit then bounds what is held in memory.
                headers = {"Host": target.netloc, "User-Agent": user_agent, "Accept": accept}
                connection.request("GET", target.path, headers={**headers, "Accept-Encoding": "identity"})
                yield connection.getresponse()
            finally:
                connection.close()
                sock.close()
        if time.monotonic() >= deadline:
            raise TimeoutError  # the watchdog's cut looks like the end of the body
    except ssl.SSLCertVerificationError as error:
        raise Rejected("fetch_tls", f"{target.host}: {error.verify_message}") from None
    except TimeoutError:
        raise Rejected("fetch_timeout", target.url, transient=True) from None
    except (OSError, http.client.HTTPException) as error:
        # The watchdog closes the socket under a reader that overruns, which looks like a broken connection.
        late = time.monotonic() >= deadline
        raise Rejected(
            "fetch_timeout" if late else "fetch_connection", f"{target.url}: {error!r}", transient=True
        ) from None
    except ValueError as error:  # http.client on control characters in a host or path
        raise Rejected("fetch_bad_url", f"{target.url}: {error}") from None


def read_body(
    response: http.client.HTTPResponse,
    max_bytes: int,
    deadline: float,
    check_start: Callable[[bytes], None] = lambda _: None,
) -> bytes:
    """The whole body; ``check_start`` sees its first bytes and may raise before the rest is read.

    Raises:
        Rejected: ``fetch_too_large``, ``fetch_incomplete`` (transient).
        TimeoutError: past the deadline.
    """
    length = response.getheader("Content-Length", "")
    if length.isdecimal() and int(length) > max_bytes:
        raise Rejected("fetch_too_large", length)
    body = bytearray()
    checked = False
    while chunk := response.read1(READ_BYTES):
        body += chunk
        if len(body) > max_bytes:
            raise Rejected("fetch_too_large")
        if time.monotonic() > deadline:
            raise TimeoutError
        if not checked and len(body) >= 16:
            check_start(bytes(body[:16]))
            checked = True
    if length.isdecimal() and len(body) < int(length) and time.monotonic() < deadline:
        raise Rejected("fetch_incomplete", f"{len(body)} of {length} bytes", transient=True)
    if not checked:
        check_start(bytes(body))
    return bytes(body)


def connect(host: str, port: int, deadline: float, allow_private: bool) -> socket.socket:
    """A connection to the first address that answers; refused if any address of the name is not public."""
    found = resolve(host, port, deadline)
    if not allow_private and not all(is_public(address[0]) for _, address in found):
        raise Rejected("fetch_private_address", host)
    failure: OSError = OSError("no address")
    for family, address in found:
        remaining = deadline - time.monotonic()
        if remaining <= 0:
            raise TimeoutError
        sock = socket.socket(family, socket.SOCK_STREAM)
        sock.settimeout(remaining)
        try:
            sock.connect(address)
        except OSError as error:
            sock.close()
            failure = error
        else:
            return sock
    raise failure


def resolve(host: str, port: int, deadline: float) -> list[tuple[socket.AddressFamily, tuple]]:
    """Addresses of a name. The system's resolver takes no time limit, so it runs in a thread that may be left."""
    pending = resolvers().submit(socket.getaddrinfo, host, port, type=socket.SOCK_STREAM)
    try:
        found = pending.result(timeout=max(0.0, deadline - time.monotonic()))
    except socket.gaierror as error:
        again = error.errno == socket.EAI_AGAIN
        raise Rejected("fetch_dns", f"{host[:100]}: {error.strerror}", transient=again) from None
    except UnicodeError as error:
        raise Rejected("fetch_bad_url", f"{host[:100]}: {error}") from None
    return [(family, address) for family, _, _, _, address in found]


@cache
def resolvers() -> ThreadPoolExecutor:
    return ThreadPoolExecutor(DNS_THREADS, thread_name_prefix="dns")


@cache
def tls_context() -> ssl.SSLContext:
    return ssl.create_default_context()


def is_public(address: str) -> bool:
    """Whether an address is on the open internet: not private, loopback, link-local (cloud metadata), ..."""
    ip = ipaddress.ip_address(address.split("%")[0])
    if isinstance(ip, ipaddress.IPv6Address) and ip.ipv4_mapped is not None:
        ip = ip.ipv4_mapped
    return ip.is_global and not ip.is_multicast and not any(ip in network for network in REFUSED)


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
