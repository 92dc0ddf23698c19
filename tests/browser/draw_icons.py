"""Draw the PNG icons of the installable app: ``python tests/browser/draw_icons.py``."""

from __future__ import annotations

from pathlib import Path
from typing import Final

from playwright.sync_api import sync_playwright

STATIC: Final = Path(__file__).resolve().parents[2] / "server/src/doorward/portal/static/portal"
# Apple's touch icon, the manifest's two, and one that systems may cut a circle out of.
SIZES: Final = {
    "icon-180": (180, 0),
    "icon-192": (192, 0),
    "icon-512": (512, 0),
    "icon-maskable": (512, 60),
}


def draw() -> None:
    """Write each icon beside the SVG it is drawn from."""
    drawing = (STATIC / "favicon.svg").read_text()
    with sync_playwright() as tools:
        browser = tools.chromium.launch(executable_path="/usr/bin/chromium", args=["--no-sandbox"])
        for name, (side, margin) in SIZES.items():
            inner = side - 2 * margin
            page = browser.new_page(viewport={"width": side, "height": side})
            page.set_content(
                f"<style>*{{margin:0}}body{{background:#10303a;padding:{margin}px}}"
                f"svg{{display:block;width:{inner}px;height:{inner}px}}</style>{drawing}"
            )
            page.screenshot(path=STATIC / f"{name}.png")
            page.close()
        browser.close()


if __name__ == "__main__":
    draw()
