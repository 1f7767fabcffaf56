"""A page opened in Chromium, over its debugging pipe: what it says, asks for and measures."""

from __future__ import annotations

import base64
import json
import os
import shutil
import subprocess
import tempfile
import time
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

PROGRAM = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
SECONDS = 60


@dataclass
class Opened:
    """What became of a page."""

    complaints: list[str] = field(default_factory=list)  # errors, warnings and exceptions of its console
    requests: list[str] = field(default_factory=list)  # URLs asked for beside the page itself
    # Of the processes that draw pages, until the script has drawn everything: a clock would tell of the machine's load.
    computing_seconds: float = 0.0
    values: dict[str, Any] = field(default_factory=dict)  # expression -> its value in the page


READY = "document.documentElement?.dataset.ready === 'yes'"
LOADED = "document.readyState === 'complete'"  # of a page without a script


def open_page(path: Path, width: int, *expressions: str, ready: str = READY, picture: Path | None = None) -> Opened:
    """Opens a file `width` pixels wide, waits until it is drawn, and evaluates the expressions in it, in order.

    A `picture` is a PNG of the whole page, for one's own eyes.
    """
    assert PROGRAM is not None
    with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as profile:  # Chromium may write as it ends
        from_us, to_us = os.pipe(), os.pipe()
        command = [PROGRAM, "--headless", "--no-sandbox", "--disable-gpu", "--no-first-run", "--remote-debugging-pipe"]
        # The pipe's ends have to be 3 and 4 in the browser.
        shell = f'exec "$@" 3<&{from_us[0]} 4>&{to_us[1]}'
        process = subprocess.Popen(
            ["bash", "-c", shell, "chromium", *command, f"--user-data-dir={profile}", "about:blank"],
            pass_fds=(from_us[0], to_us[1]),
            stderr=subprocess.DEVNULL,
        )
        os.close(from_us[0])
        os.close(to_us[1])
        try:
            with os.fdopen(from_us[1], "wb", buffering=0) as sending, os.fdopen(to_us[0], "rb", buffering=0) as heard:
                pipe = _Pipe(sending, heard, process.pid)
                opened = _look(pipe, path, width, expressions, ready)
                if picture is not None:
                    shot = pipe.call("Page.captureScreenshot", format="png", captureBeyondViewport=True)
                    picture.write_bytes(base64.b64decode(shot["data"]))
                return opened
        finally:
            process.kill()
            process.wait()


class _Pipe:
    """Chromium's debugging protocol: JSON messages with a zero byte after each."""

    def __init__(self, sending: Any, heard: Any, process: int) -> None:
        self.process = process
        self.sending, self.heard, self.count, self.rest = sending, heard, 0, b""
        self.session: str | None = None
        self.events: list[dict[str, Any]] = []

    def call(self, method: str, **parameters: Any) -> dict[str, Any]:
        self.count += 1
        message = {"id": self.count, "method": method, "params": parameters}
        self.sending.write(json.dumps(message | ({"sessionId": self.session} if self.session else {})).encode() + b"\0")
        while (answer := self._next()).get("id") != self.count:
            self.events.append(answer)
        assert "error" not in answer, answer
        found: dict[str, Any] = answer["result"]
        return found

    def _next(self) -> dict[str, Any]:
        while b"\0" not in self.rest:
            part = self.heard.read(1 << 20)
            assert part, "the browser has ended"
            self.rest += part
        text, _, self.rest = self.rest.partition(b"\0")
        found: dict[str, Any] = json.loads(text)
        return found


def _look(pipe: _Pipe, path: Path, width: int, expressions: tuple[str, ...], ready: str) -> Opened:
    target = pipe.call("Target.createTarget", url="about:blank")["targetId"]
    pipe.session = pipe.call("Target.attachToTarget", targetId=target, flatten=True)["sessionId"]
    for domain in ("Page", "Runtime", "Log", "Network"):
        pipe.call(f"{domain}.enable")
    pipe.call("Emulation.setDeviceMetricsOverride", width=width, height=1000, deviceScaleFactor=1, mobile=False)

    def value(expression: str) -> Any:
        found = pipe.call("Runtime.evaluate", expression=expression, returnByValue=True, awaitPromise=True)
        assert "exceptionDetails" not in found, found
        return found["result"].get("value")

    began, computed = time.monotonic(), renderer_seconds(pipe.process)
    pipe.call("Page.navigate", url=path.as_uri())
    while not value(ready) and time.monotonic() - began < SECONDS:
        time.sleep(0.02)
    opened = Opened(computing_seconds=renderer_seconds(pipe.process) - computed)
    opened.values = {expression: value(expression) for expression in expressions}
    for event in pipe.events:
        parameters = event.get("params", {})
        if event.get("method") == "Runtime.exceptionThrown":
            opened.complaints.append(parameters["exceptionDetails"]["exception"]["description"])
        if event.get("method") == "Runtime.consoleAPICalled" and parameters["type"] in ("error", "warning", "assert"):
            opened.complaints.append(str(parameters["args"]))
        if event.get("method") == "Log.entryAdded" and parameters["entry"]["level"] in ("error", "warning"):
            opened.complaints.append(parameters["entry"]["text"])
        if event.get("method") == "Network.requestWillBeSent":
            opened.requests.append(parameters["request"]["url"])
    opened.requests = [url for url in opened.requests if url != path.as_uri() and not url.startswith("data:")]
    return opened


def renderer_seconds(browser: int) -> float:
    """CPU seconds so far of the browser's processes that run and lay out pages."""
    parents, seconds = {}, {}
    for stat in Path("/proc").glob("[0-9]*/stat"):
        with suppress(OSError):  # it has just ended
            fields = stat.read_text().rpartition(")")[2].split()
            parents[int(stat.parent.name)] = int(fields[1])
            if b"--type=renderer" in (stat.parent / "cmdline").read_bytes():
                seconds[int(stat.parent.name)] = (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")
    found = 0.0
    for process, spent in seconds.items():
        while process not in (0, browser):
            process = parents.get(process, 0)
        found += spent * (process == browser)
    return found
