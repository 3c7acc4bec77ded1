"""A stand-in for the hub's interface: who am I, datasets, commits, and large files by git-lfs' basic transfer."""

from __future__ import annotations

import base64
import hashlib
import json
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

TOKEN = "hf_standin"


@dataclass
class Hub:
    """``datasets``: name -> file -> bytes. ``failing``: a part of a path that answers 403."""

    url: str = ""
    datasets: dict[str, dict[str, bytes]] = field(default_factory=dict)
    private: dict[str, bool] = field(default_factory=dict)
    objects: dict[str, bytes] = field(default_factory=dict)
    commits: list[dict[str, Any]] = field(default_factory=list)
    failing: str = ""


class Handler(BaseHTTPRequestHandler):
    hub: Hub

    def log_message(self, *_: Any) -> None:
        """Nothing on the terminal."""

    def answer(self, value: Any, status: int = 200) -> None:
        data = json.dumps(value).encode()
        self.send_response(status)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(data)))
        self.end_headers()
        self.wfile.write(data)

    def handle_any(self) -> None:
        body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
        path = self.path.partition("?")[0]
        if self.command == "PUT":  # to the store of large files, which knows no tokens
            oid = path.rpartition("/")[2]
            assert hashlib.sha256(body).hexdigest() == oid
            self.hub.objects[oid] = body
            return self.answer({})
        if self.headers.get("Authorization") != f"Bearer {TOKEN}":
            return self.answer({"error": "Invalid credentials"}, 401)
        if self.hub.failing and self.hub.failing in path:
            return self.answer({"error": "You have no right to do this"}, 403)
        if path == "/api/whoami-v2":
            return self.answer({"name": "somebody", "type": "user", "orgs": []})
        if path == "/api/validate-yaml":
            return self.answer({"errors": [], "warnings": []})
        if path == "/api/repos/create":
            return self.create(json.loads(body))
        name = "/".join(path.removeprefix("/api").removeprefix("/datasets/").split("/")[:2]).removesuffix(".git")
        files = self.hub.datasets.get(name)
        if files is None:
            return self.answer({"error": "Repository not found"}, 404)
        if path.endswith("/info/lfs/objects/batch"):
            return self.answer({"transfer": "basic", "objects": [self.place(o) for o in json.loads(body)["objects"]]})
        if "/preupload/" in path:
            asked = json.loads(body)["files"]
            return self.answer({"files": [self.mode(file["path"]) for file in asked]})
        if "/commit/" in path:
            return self.commit(name, files, [json.loads(line) for line in body.splitlines()])
        if "/tree/" in path:
            return self.answer([{"type": "file", "path": p, "size": len(d), "oid": "0"} for p, d in files.items()])
        siblings = [{"rfilename": path} for path in files]
        return self.answer({"id": name, "sha": str(len(self.hub.commits)), "private": True, "siblings": siblings})

    do_GET = do_POST = do_PUT = handle_any

    def create(self, asked: dict[str, Any]) -> None:
        assert asked["type"] == "dataset"
        name = f"{asked.get('organization') or 'somebody'}/{asked['name']}"
        there = name in self.hub.datasets
        self.hub.datasets.setdefault(name, {".gitattributes": b""})
        self.hub.private.setdefault(name, bool(asked.get("private") or asked.get("visibility") == "private"))
        self.answer({"url": f"{self.hub.url}/datasets/{name}", "name": name}, 409 if there else 200)

    @staticmethod
    def mode(path: str) -> dict[str, Any]:
        large = path.endswith(".parquet")
        return {"path": path, "uploadMode": "lfs" if large else "regular", "shouldIgnore": False}

    def place(self, wanted: dict[str, Any]) -> dict[str, Any]:
        if wanted["oid"] in self.hub.objects:
            return wanted
        return wanted | {"actions": {"upload": {"href": f"{self.hub.url}/objects/{wanted['oid']}"}}}

    def commit(self, name: str, files: dict[str, bytes], lines: list[dict[str, Any]]) -> None:
        for line in lines:
            value = line["value"]
            if line["key"] == "header":
                self.hub.commits.append(value)
            elif line["key"] == "deletedFile":
                del files[value["path"]]
            elif line["key"] == "lfsFile":
                files[value["path"]] = self.hub.objects[value["oid"]]
            else:
                files[value["path"]] = base64.b64decode(value["content"])
        self.answer({"commitUrl": f"{self.hub.url}/datasets/{name}/commit/0", "commitOid": "0", "success": True})


@contextmanager
def standing_in() -> Iterator[Hub]:
    hub = Hub()
    server = ThreadingHTTPServer(("127.0.0.1", 0), type("OwnHandler", (Handler,), {"hub": hub}))
    hub.url = f"http://127.0.0.1:{server.server_address[1]}"
    threading.Thread(target=server.serve_forever, daemon=True).start()
    try:
        yield hub
    finally:
        server.shutdown()
        server.server_close()
