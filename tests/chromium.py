"""A headless Chromium for tests that look at a page, over its DevTools protocol."""

import asyncio
import base64
import json
import shutil
import subprocess
import tempfile
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import aiohttp

NAMES = ("chromium", "chromium-browser", "google-chrome", "chrome")
FLAGS = (
    "--headless=new",
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    "--hide-scrollbars",
    "--remote-debugging-port=0",
)
SECONDS = 60.0  # any one answer


def find_chromium() -> str | None:
    """Path of an installed Chromium, or None."""
    return next((path for name in NAMES if (path := shutil.which(name))), None)


@dataclass
class Look:
    """What was seen of a page at one size."""

    values: dict[str, Any]  # of the expressions asked for
    screenshot: bytes  # PNG of the whole page
    requests: list[str] = field(default_factory=list)  # all that was fetched, the page itself first
    errors: list[str] = field(default_factory=list)  # of the console


def look(page: Path, width: int, height: int, scheme: str, expressions: dict[str, str]) -> Look:
    """Open a page and look at it.

    Args:
        page: HTML file.
        width: Of the window, CSS pixels.
        height: Likewise.
        scheme: ``light``, ``dark``, or ``print`` for paper.
        expressions: JavaScript to evaluate, by name.
    """
    with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as profile:
        process = subprocess.Popen(
            [str(find_chromium()), *FLAGS, f"--user-data-dir={profile}", "about:blank"],
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )
        try:
            return asyncio.run(_look(Path(profile), page, width, height, scheme, expressions))
        finally:
            process.terminate()  # closed already, unless the look failed
            process.wait(SECONDS)


async def _look(
    profile: Path, page: Path, width: int, height: int, scheme: str, expressions: dict[str, str]
) -> Look:
    port = await asyncio.wait_for(_port(profile), SECONDS)
    async with aiohttp.ClientSession() as http:
        async with http.get(f"http://127.0.0.1:{port}/json/list") as answer:
            target = next(t for t in await answer.json(content_type=None) if t["type"] == "page")
        async with http.ws_connect(target["webSocketDebuggerUrl"], max_msg_size=0) as socket:
            tab = _Tab(socket)
            for domain in ("Page", "Network", "Runtime", "Log"):
                await tab.ask(f"{domain}.enable")
            size = {"width": width, "height": height, "deviceScaleFactor": 1, "mobile": width < 600}
            await tab.ask("Emulation.setDeviceMetricsOverride", **size)
            paper = scheme == "print"
            features = [] if paper else [{"name": "prefers-color-scheme", "value": scheme}]
            await tab.ask(
                "Emulation.setEmulatedMedia", media="print" if paper else "screen", features=features
            )
            await tab.ask("Page.navigate", url=page.as_uri())
            await tab.await_event("Page.loadEventFired")
            values = {name: await tab.value(text) for name, text in expressions.items()}
            shot = await tab.ask("Page.captureScreenshot", format="png", captureBeyondViewport=True)
            await socket.send_json({"id": 0, "method": "Browser.close"})
    seen = [event["params"]["request"]["url"] for event in tab.events_of("Network.requestWillBeSent")]
    errors = [json.dumps(event["params"]) for event in tab.events_of("Runtime.exceptionThrown")]
    errors += [event["params"]["entry"]["text"] for event in tab.events_of("Log.entryAdded")]
    return Look(values, base64.b64decode(shot["data"]), seen, errors)


async def _port(profile: Path) -> int:
    file = profile / "DevToolsActivePort"
    while not (file.exists() and file.read_text().count("\n")):
        await asyncio.sleep(0.05)
    return int(file.read_text().splitlines()[0])


class _Tab:
    """One tab: commands, and the events that came meanwhile."""

    def __init__(self, socket: aiohttp.ClientWebSocketResponse) -> None:
        self.socket = socket
        self.number = 0
        self.events: list[dict[str, Any]] = []

    async def ask(self, method: str, **parameters: Any) -> dict[str, Any]:
        """The command's result."""
        self.number += 1
        await self.socket.send_json({"id": self.number, "method": method, "params": parameters})
        while True:
            message = await self._receive()
            if message.get("id") == self.number:
                assert "error" not in message, message
                return dict(message["result"])

    async def value(self, expression: str) -> Any:
        """What an expression is worth in the page."""
        result = await self.ask("Runtime.evaluate", expression=expression, returnByValue=True)
        assert "exceptionDetails" not in result, result
        return result["result"].get("value")

    async def await_event(self, name: str) -> None:
        """Wait until it has come."""
        while not self.events_of(name):
            await self._receive()

    def events_of(self, name: str) -> list[dict[str, Any]]:
        """Those that came so far."""
        return [event for event in self.events if event["method"] == name]

    async def _receive(self) -> dict[str, Any]:
        message: dict[str, Any] = await self.socket.receive_json(timeout=SECONDS)
        if "method" in message:
            self.events.append(message)
        return message
