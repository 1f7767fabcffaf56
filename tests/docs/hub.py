"""A Hugging Face hub on this machine, as far as its own client asks one for downloads and uploads of small files.

Not covered: large files, which the hub sends elsewhere; rights; the web pages.
"""

from __future__ import annotations

import base64
import hashlib
import json
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

COMMIT = "c0ffee" * 6 + "c0ff"


class Hub(ThreadingHTTPServer):
    """Serves folders by their names on the hub, and keeps what is uploaded."""

    daemon_threads = True

    def __init__(self, folders: dict[str, Path]) -> None:
        super().__init__(("127.0.0.1", 0), Request)
        self.folders = folders  # OWNER/NAME -> its files
        self.uploaded: dict[str, dict[str, bytes]] = {}  # OWNER/NAME -> the files of its newest commit, by path
        self.private: dict[str, bool] = {}

    @property
    def address(self) -> str:
        return f"http://127.0.0.1:{self.server_port}"

    def files_of(self, name: str) -> dict[str, Path]:
        folder = self.folders[name]
        return {str(path.relative_to(folder)): path for path in sorted(folder.rglob("*")) if path.is_file()}


@contextmanager
def hub(folders: dict[str, Path]) -> Iterator[Hub]:
    """A hub that answers while it is entered."""
    with Hub(folders) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield server
        server.shutdown()


class Request(BaseHTTPRequestHandler):
    """One question of the hub's client."""

    server: Hub

    def log_message(self, format: str, *arguments: Any) -> None:
        """Says nothing."""

    def do_HEAD(self) -> None:  # noqa: N802
        self._download(has_body=False)

    def do_GET(self) -> None:  # noqa: N802
        path = urlsplit(self.path).path
        if not path.startswith("/api/"):
            self._download(has_body=True)
            return
        parts = path.split("/")[3:]
        if len(parts) < 2:  # its telemetry
            self._answer({})
            return
        repository, more = "/".join(parts[:2]), parts[2:]
        if repository not in self.server.folders:
            self._answer({"error": "Repository not found"}, 404, {"X-Error-Code": "RepoNotFound"})
            return
        files = self.server.files_of(repository)
        if more[:1] == ["tree"]:
            entries = [("file", one, path.stat().st_size) for one, path in files.items()]
            self._answer([{"type": t, "path": p, "size": size, "oid": digest(p)} for t, p, size in entries])
        else:
            siblings = [{"rfilename": one} for one in files]
            self._answer({"id": repository, "sha": COMMIT, "siblings": siblings, "private": False, "tags": []})

    def do_POST(self) -> None:  # noqa: N802
        body = self._body()
        parts = urlsplit(self.path).path.split("/")[2:]
        if parts == ["validate-yaml"]:
            self._answer({"errors": [], "warnings": []})
        elif parts == ["repos", "create"]:
            asked = json.loads(body)
            name = f"{asked['organization']}/{asked['name']}"
            self.server.private[name] = asked.get("private") is True or asked.get("visibility") == "private"
            self._answer({"id": name, "url": f"{self.server.address}/{name}"})
        elif parts[3] == "preupload":
            paths = [one["path"] for one in json.loads(body)["files"]]
            self._answer({"files": [{"path": one, "uploadMode": "regular", "shouldIgnore": False} for one in paths]})
        else:
            assert parts[3] == "commit", self.path
            name = f"{parts[1]}/{parts[2]}"
            lines = [json.loads(line) for line in body.splitlines()]
            files = [line["value"] for line in lines if line["key"] == "file"]
            self.server.uploaded[name] = {one["path"]: base64.b64decode(one["content"]) for one in files}
            self._answer({"commitUrl": f"{self.server.address}/{name}/commit/{COMMIT}", "commitOid": COMMIT})

    def _download(self, *, has_body: bool) -> None:
        """/OWNER/NAME/resolve/REVISION/FILE, of a data set behind /datasets."""
        parts = urlsplit(self.path).path.removeprefix("/datasets").split("/")
        path = self.server.files_of("/".join(parts[1:3]))["/".join(parts[5:])]
        headers = {"ETag": f'"{digest(str(path))}"', "X-Repo-Commit": COMMIT}
        self._send(path.read_bytes(), 200, headers, has_body=has_body)

    def _body(self) -> bytes:
        if "Content-Length" in self.headers:
            return self.rfile.read(int(self.headers["Content-Length"]))
        body = b""
        while size := int(self.rfile.readline(), 16):  # in chunks
            body += self.rfile.read(size)
            self.rfile.readline()
        self.rfile.readline()
        return body

    def _answer(self, value: Any, status: int = 200, headers: dict[str, str] | None = None) -> None:
        kind = {"Content-Type": "application/json"}
        self._send(json.dumps(value).encode(), status, kind | (headers or {}), has_body=True)

    def _send(self, body: bytes, status: int, headers: dict[str, str], *, has_body: bool) -> None:
        self.send_response(status)
        for name, value in (headers | {"Content-Length": str(len(body))}).items():
            self.send_header(name, value)
        self.end_headers()
        if has_body:
            self.wfile.write(body)


def digest(text: str) -> str:
    return hashlib.sha1(text.encode()).hexdigest()
