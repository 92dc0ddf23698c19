"""Take the README's pictures from a running demo: ``python tests/browser/take_screenshots.py``."""

from __future__ import annotations

import re
import socket
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Final

from playwright.sync_api import Page, sync_playwright

PICTURES: Final = Path(__file__).resolve().parents[2] / "docs/pictures"
CHROMIUM: Final = "/usr/bin/chromium"


@contextmanager
def demo() -> Iterator[dict[str, str]]:
    """Run a demo on free doors meanwhile; gives where it is and Alice’s password."""
    doors = [str(_free_port()) for _ in range(2)]
    words = [
        sys.executable,
        "-m",
        "doorward",
        "demo",
        "--port",
        doors[0],
        "--device-port",
        doors[1],
    ]
    process = subprocess.Popen(words, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
    told: dict[str, str] = {}
    try:
        for line in process.stdout or ():
            found = re.match(r"\s+(Sign in|Address|Password)\s+(\S+)", line)
            if found:
                told[found[1]] = found[2]
            if len(told) == 3:
                break
        else:
            sys.exit("The demo ended before it was ready.")
        yield told
    finally:
        process.terminate()
        process.communicate(timeout=60)


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def sign_in(page: Page, told: dict[str, str]) -> None:
    """Sign Alice in."""
    page.goto(f"{told['Sign in']}/login/")
    page.get_by_label("Email address").fill(told["Address"])
    page.get_by_label("Password", exact=True).fill(told["Password"])
    page.get_by_role("button", name="Sign in", exact=True).click()
    page.get_by_role("heading", name="Lately").wait_for(timeout=60_000)


def take() -> None:
    """Write docs/pictures/home.png and its neighbors."""
    PICTURES.mkdir(parents=True, exist_ok=True)
    with demo() as told, sync_playwright() as tools:
        browser = tools.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"])
        desk = browser.new_page(viewport={"width": 1200, "height": 820}, device_scale_factor=1.5)
        sign_in(desk, told)
        desk.get_by_text("It can’t run.").first.wait_for(timeout=60_000)
        desk.wait_for_timeout(500)
        desk.screenshot(path=PICTURES / "home.png")
        phone = browser.new_page(
            viewport={"width": 390, "height": 844}, device_scale_factor=2, color_scheme="dark"
        )
        phone.goto(f"{told['Sign in']}/login/")
        phone.screenshot(path=PICTURES / "sign-in-phone.png")
        sign_in(phone, told)
        phone.screenshot(path=PICTURES / "home-phone.png")
        browser.close()


if __name__ == "__main__":
    take()
