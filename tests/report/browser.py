"""A page opened in Chromium, over its debugging pipe: what it says, asks for and measures."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import tempfile
import time
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
    load_seconds: float = 0.0  # from asking for the page to its script having drawn everything
    values: dict[str, Any] = field(default_factory=dict)  # expression -> its value in the page


READY = "document.documentElement?.dataset.ready === 'yes'"
LOADED = "document.readyState === 'complete'"  # of a page without a script


def open_page(path: Path, width: int, *expressions: str, ready: str = READY) -> Opened:
    """Opens a file `width` pixels wide, waits until it is drawn, and evaluates the expressions in it, in order."""
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
                return _look(_Pipe(sending, heard), path, width, expressions, ready)
        finally:
            process.kill()
            process.wait()


class _Pipe:
    """Chromium's debugging protocol: JSON messages with a zero byte after each."""

    def __init__(self, sending: Any, heard: Any) -> None:
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

    began = time.monotonic()
    pipe.call("Page.navigate", url=path.as_uri())
    while not value(ready) and time.monotonic() - began < SECONDS:
        time.sleep(0.02)
    opened = Opened(load_seconds=time.monotonic() - began)
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
