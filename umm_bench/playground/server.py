"""The server of the playground: one page, the suite's pictures, and two questions that are answered in JSON.

It listens on this machine alone, and answers no page but its own.
"""

from __future__ import annotations

import json
import logging
from http import HTTPStatus
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import quote, unquote

from reports.page import page_text
from umm_bench.cli.commands import is_out_of_memory
from umm_bench.errors import UserError
from umm_bench.playground.studio import UPLOAD_BYTES, Studio, as_png

logger = logging.getLogger(__name__)

HOST = "127.0.0.1"
MOST_BYTES = 3 * UPLOAD_BYTES
"""Of one question: two uploads in base64, and the rest."""
SECONDS = 60.0
"""For which a question may stay unfinished."""


class Server(ThreadingHTTPServer):
    """`with Server(studio, port) as server: server.serve_forever()`; port 0 is any that is free."""

    daemon_threads = True

    def __init__(self, studio: Studio, port: int) -> None:
        self.studio = studio
        try:
            super().__init__((HOST, port), Handler)
        except OSError as error:
            raise UserError(f"cannot listen on port {port}: {error.strerror}; give another --port") from error

    @property
    def address(self) -> str:
        return f"http://{HOST}:{self.server_address[1]}/"


class Handler(BaseHTTPRequestHandler):
    server: Server
    timeout = SECONDS

    def do_GET(self) -> None:
        if not self._own():
            return
        subject = self.server.studio.known.get(unquote(self.path.removeprefix("/subject/")))
        if self.path == "/":
            self._send(HTTPStatus.OK, "text/html; charset=utf-8", page(self.server.studio).encode())
        elif subject is not None:
            self._send(HTTPStatus.OK, "image/png", subject.references[0].read_bytes())
        else:
            self._say(HTTPStatus.NOT_FOUND, "there is nothing here")

    def do_POST(self) -> None:
        if not self._own():
            return
        answers = {"/draw": self._draw, "/card": self._card}
        try:
            if self.path not in answers:
                raise UserError("there is nothing here")
            answers[self.path](self._asked())
        except UserError as error:
            self._say(HTTPStatus.BAD_REQUEST, " ".join(str(error).split()))
        except (MemoryError, RuntimeError) as error:
            if is_out_of_memory(error):
                self._say(HTTPStatus.INSUFFICIENT_STORAGE, "out of memory; ask for a smaller model")
                return
            self._say(HTTPStatus.INTERNAL_SERVER_ERROR, "a fault of the program; its terminal says more")
            raise
        except Exception:
            self._say(HTTPStatus.INTERNAL_SERVER_ERROR, "a fault of the program; its terminal says more")
            raise

    def _own(self) -> bool:
        """Whether it is our page that asks: a stranger's has another origin, or a name of its own for this machine."""
        names = {f"{name}:{self.server.server_address[1]}" for name in (HOST, "localhost")}
        origin = self.headers.get("Origin", "")
        if self.headers.get("Host") in names and (not origin or origin.removeprefix("http://") in names):
            return True
        self._say(HTTPStatus.FORBIDDEN, f"only {self.server.address} may ask")
        return False

    def _asked(self) -> dict[str, Any]:
        length = self.headers.get("Content-Length", "")
        if not length.isdecimal() or len(length) > 12 or int(length) > MOST_BYTES:
            self.close_connection = True
            raise UserError(f"that is more than {UPLOAD_BYTES // 2**20} MB a picture; make it smaller")
        try:
            found = json.loads(self.rfile.read(int(length)))
        except (ValueError, RecursionError):
            raise UserError("the question is no JSON") from None
        if not isinstance(found, dict):
            raise UserError("the question is no JSON object")
        return found

    def _draw(self, asked: dict[str, Any]) -> None:
        drawn = self.server.studio.draw(asked)
        told = {"plain": as_png(drawn.plain), "umm": as_png(drawn.umm), "prompt": drawn.prompt}
        self._send_json(HTTPStatus.OK, {**told, "seconds": [round(each, 2) for each in drawn.seconds]})

    def _card(self, asked: dict[str, Any]) -> None:
        name, content = self.server.studio.card(asked)
        self._send(HTTPStatus.OK, "application/octet-stream", content, {"X-File-Name": quote(name)})

    def _say(self, status: HTTPStatus, why: str) -> None:
        self._send_json(status, {"error": why})

    def _send_json(self, status: HTTPStatus, value: dict[str, Any]) -> None:
        self._send(status, "application/json", json.dumps(value).encode())

    def _send(self, status: HTTPStatus, kind: str, content: bytes, headers: dict[str, str] | None = None) -> None:
        try:
            self.send_response(status)
            named = {"Content-Type": kind, "Content-Length": str(len(content)), "X-Content-Type-Options": "nosniff"}
            for name, value in {**named, "Cache-Control": "no-store", **(headers or {})}.items():
                self.send_header(name, value)
            self.end_headers()
            self.wfile.write(content)
        except (BrokenPipeError, ConnectionResetError):
            logger.debug("the browser did not wait for the answer")

    def log_message(self, format: str, *args: Any) -> None:
        logger.debug(format, *args)


def page(studio: Studio) -> str:
    subjects = [(s.id, s.class_noun, f"/subject/{quote(s.id, safe='')}") for s in studio.known.values()]
    return page_text(
        "demo.html.j2", "/", ("demo.css", "demo.js"), served=True, run=None, subjects=subjects,
        upload_mb=UPLOAD_BYTES // 2**20, usual=studio.usual,
    )  # fmt: skip
