"""Picture every component on one page: ``python tests/browser/gallery.py FOLDER``."""

from __future__ import annotations

import os
import sys
import tempfile
from datetime import timedelta
from pathlib import Path
from typing import Final

from playwright.sync_api import sync_playwright

HERE: Final = Path(__file__).resolve().parent
WIDTHS: Final = {"phone": 390, "desk": 1280}
HOSTILE: Final = "<img src=x onerror=alert(1)>\u202egpj.exe\x07" + "x" * 600


def write(folder: Path) -> list[Path]:
    """Render the gallery's templates into ``folder`` and return the pages."""
    os.environ.setdefault("DOORWARD_DATA", tempfile.mkdtemp())
    os.environ.setdefault("DJANGO_SETTINGS_MODULE", "doorward.settings")
    import django
    from django.conf import settings

    settings.STORAGES["staticfiles"] = {
        "BACKEND": "django.contrib.staticfiles.storage.StaticFilesStorage"
    }
    settings.TEMPLATES[0]["DIRS"] = [HERE / "gallery"]
    django.setup()
    from django import forms
    from django.core.management import call_command
    from django.template.loader import render_to_string
    from django.test import RequestFactory
    from django.utils import timezone

    class Example(forms.Form):
        """Each kind of field, and one that is wrong."""

        login = forms.EmailField(
            label="Email address",
            widget=forms.EmailInput(attrs={"autocomplete": "email"}),
        )
        password = forms.CharField(
            label="Password", widget=forms.PasswordInput, help_text="15 characters or more."
        )
        name = forms.CharField(label="Name of the device", required=False)
        remember = forms.BooleanField(label="Keep me signed in on this computer")

    form = Example({"login": "alice@example", "password": "x", "name": "Alice’s laptop"})
    now = timezone.now()
    settings.STATIC_ROOT = folder / "static"
    call_command("collectstatic", interactive=False, verbosity=0)
    pages = []
    for name in ("parts.html", "home.html", "door.html"):
        request = RequestFactory().get("/")
        context = {
            "product_name": "Doorward",
            "form": form,
            "recent": now - timedelta(minutes=4),
            "old": now - timedelta(hours=30),
            "hostile": HOSTILE,
            "request": request,
            "messages": ["We renamed it to Alice’s laptop."] if name == "parts.html" else [],
        }
        page = folder / name
        page.write_text(render_to_string(name, context).replace('"/static/', '"static/'))
        pages.append(page)
    return pages


def picture(folder: Path) -> None:
    """Serve the folder on this machine and picture each page at both widths, in light and dark."""
    import functools
    import http.server
    import threading

    handler = functools.partial(http.server.SimpleHTTPRequestHandler, directory=str(folder))
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    with sync_playwright() as tools:
        browser = tools.chromium.launch(executable_path="/usr/bin/chromium", args=["--no-sandbox"])
        for page_file in sorted(folder.glob("*.html")):
            for scheme in ("light", "dark"):
                for name, width in WIDTHS.items():
                    page = browser.new_page(
                        viewport={"width": width, "height": 844},
                        color_scheme=scheme,
                    )
                    page.goto(f"http://127.0.0.1:{server.server_port}/{page_file.name}")
                    page.wait_for_timeout(300)
                    page.screenshot(
                        path=folder / f"{page_file.stem}-{scheme}-{name}.png",
                        full_page=page_file.stem == "parts",
                    )
                    page.close()
        browser.close()
    server.shutdown()


if __name__ == "__main__":
    target = Path(sys.argv[1])
    target.mkdir(parents=True, exist_ok=True)
    write(target)
    picture(target)
