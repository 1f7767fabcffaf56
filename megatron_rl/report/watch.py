"""Watching: the live display of a run from its files, and its page over HTTP, where the directory can be seen."""

from __future__ import annotations

import time
from collections.abc import Callable
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from typing import Any

from rich.console import Console, Group
from rich.live import Live
from rich.text import Text

from megatron_rl.config.checks import UserError
from megatron_rl.report import ledger, page, provenance
from megatron_rl.report.journal import FILE_NAME, read_rows
from megatron_rl.report.progress import Course, Progress, duration
from megatron_rl.runtime.heartbeat import last_beat

REFRESH_SECONDS, PAGE_SECONDS = 1.0, 10.0
LOOPBACK = "127.0.0.1"  # whoever is not on this machine needs a tunnel


def watch(directory: Path, console: Console, *, stays: bool) -> None:
    """Shows where a run stands, and goes on showing it until the run has ended where it `stays`. Raises UserError."""
    facts = provenance.read_run_file(directory)
    journal = _Journal(directory / FILE_NAME)
    with Live(console=console, auto_refresh=False) as live:
        while True:
            line, is_over = status(directory)
            progress = Progress(f"{facts['release']} at scale {facts['scale']}", facts["run"]["recipe"]["num_steps"])
            progress.course = journal.course()
            live.update(Group(progress.display(), Text(line)), refresh=True)
            if is_over or not stays:
                return
            time.sleep(REFRESH_SECONDS)


class _Journal:
    """What there is to show of a journal, read again only when it has changed."""

    def __init__(self, path: Path) -> None:
        self.path, self.seen = path, (0, 0.0)
        self.found = Course()

    def course(self) -> Course:
        if self.path.exists():
            facts = self.path.stat()
            if (facts.st_size, facts.st_mtime) != self.seen:
                self.seen, self.found = (facts.st_size, facts.st_mtime), Course(read_rows(self.path))
        return self.found


def status(directory: Path) -> tuple[str, bool]:
    """What the newest attempt is at, in one line, and whether it has ended."""
    attempts, beat = ledger.read_attempts(directory), last_beat(directory)
    if not attempts:
        return "has not begun", False
    attempt = attempts[-1]
    if attempt.why != "under way" or beat is None:
        return f"attempt {attempt.number} at step {attempt.to_step}: {attempt.why}", True
    at = f": {beat['detail']}" if beat["where"] == "generate" and beat["detail"] else ""
    ago = duration(max(time.time() - beat["since"], 0.0))
    return f"attempt {attempt.number}, step {attempt.to_step + 1}{at}; {beat['where']} for {ago}", False


def serve(directory: Path, port: int, says: Callable[[str], None]) -> None:
    """Serves the page of a run on this machine alone, drawn anew when it is asked for, until it is interrupted.

    Raises UserError where there is no run, or the port cannot be had.
    """
    provenance.read_run_file(directory)
    try:
        found = server(directory, port)
    except OSError as error:
        raise UserError(
            f"--serve {port}: cannot be had ({error.strerror}); give another port, or 0 for a free one"
        ) from None
    with found:
        own = found.server_port
        says(f"http://{LOOPBACK}:{own}/ (from elsewhere: ssh -L {own}:{LOOPBACK}:{own} THIS_MACHINE)")
        found.serve_forever()


def server(directory: Path, port: int) -> HTTPServer:
    """The server, which listens. Raises OSError where the port is taken."""
    drawn: dict[str, Any] = {"at": 0.0, "page": b""}

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:  # noqa: N802
            if self.path != "/":
                self.send_error(404)
                return
            if time.time() - drawn["at"] > PAGE_SECONDS:
                try:
                    drawn.update(page=page.page_of([page.read_run(directory)]).encode(), at=time.time())
                except (UserError, RuntimeError) as error:
                    self.send_error(503, explain=str(error))
                    return
            self.send_response(200)
            self.send_header("Content-Type", "text/html; charset=utf-8")
            self.send_header("Content-Length", str(len(drawn["page"])))
            self.send_header("Refresh", "60")
            self.end_headers()
            self.wfile.write(drawn["page"])

        def log_message(self, format: str, *arguments: Any) -> None:
            """Says nothing."""

    return HTTPServer((LOOPBACK, port), Handler)
