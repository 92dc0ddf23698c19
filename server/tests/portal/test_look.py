"""The look keeps its promises: contrast, weight, color, light and dark, the person's zone."""

from __future__ import annotations

import re
from datetime import timedelta
from pathlib import Path

import pytest
from django.test import Client
from django.utils import timezone
from server.tests.portal.stock import scan_of

from doorward.accounts.models import User
from doorward.devices.models import Device
from doorward.portal import site_files, telling
from doorward.portal.templatetags import look

STATIC = Path(site_files.__file__).parent / "static/portal"
STATES = ("safe", "attention", "danger", "unknown")
TEXTS = ("ink", "ink-soft", "link")
GROUNDS = ("paper", "surface", "sunken", "glow")
ON_DUSK = ("on-dusk", "on-dusk-soft")
PAIRS = [
    *((text, ground, 4.5) for text in TEXTS for ground in GROUNDS),
    *((state, f"{state}-ground", 4.5) for state in STATES),
    *((state, ground, 4.5) for state in STATES for ground in ("paper", "surface")),
    *((text, ground, 4.5) for text in ON_DUSK for ground in ("dusk", "dusk-raised")),
    ("on-lamp", "lamp", 4.5),
    ("on-lamp", "lamp-lit", 4.5),
    ("on-danger-solid", "danger-solid", 4.5),
    ("paper", "ink", 4.5),
    ("lamp", "dusk", 3.0),
    *(("lamp-far", ground, 4.5) for ground in ("dusk", "dusk-raised")),
    *((edge, ground, 3.0) for edge in ("focus", "line-strong") for ground in ("paper", "surface")),
]


def tokens(scheme: int) -> dict[str, str]:
    """The colors of tokens.css, light (0) or dark (1)."""
    found = {}
    for name, value in re.findall(r"--([\w-]+):\s*([^;]+);", (STATIC / "tokens.css").read_text()):
        both = re.search(r"light-dark\((#\w{6}),\s*(#\w{6})\)", value)
        one = re.search(r"#\w{6}", value)
        if both:
            found[name] = both[scheme + 1]
        elif one:
            found[name] = one[0]
    return found


@pytest.mark.parametrize("scheme", [0, 1], ids=["light", "dark"])
@pytest.mark.parametrize(("text", "ground", "least"), PAIRS)
def test_every_pair_of_colors_can_be_read(
    text: str, ground: str, least: float, scheme: int
) -> None:
    colors = tokens(scheme)
    assert site_files.contrast(colors[text], colors[ground]) >= least


def test_the_typeface_weighs_at_most_forty_kilobytes() -> None:
    assert sum(path.stat().st_size for path in STATIC.glob("fonts/*.woff2")) <= 40 * 1024
    assert "SIL Open Font License" in (STATIC / "fonts/OFL.txt").read_text()


@pytest.mark.parametrize(
    "color", ["#f3ad42", "#0a4d8c", "#ffffff", "#000000", "#777777", "#c2185b"]
)
def test_an_operators_color_always_carries_text_that_can_be_read(color: str) -> None:
    css = site_files.brand_css(color)
    on = re.search(r"--brand-on-lamp: (#\w{6})", css)
    assert on is not None
    assert site_files.contrast(color, on[1]) >= 4.5


@pytest.mark.parametrize("color", ["#f3ad42", "#0a4d8c", "#7a3fb0", "#000000", "#1c424d"])
def test_an_operators_color_can_be_seen_on_the_rail(color: str) -> None:
    far = re.search(r"--brand-far: (#\w{6})", site_files.brand_css(color))
    assert far is not None
    assert tokens(0)["dusk-raised"] == site_files.DUSK_RAISED
    for scheme in (0, 1):
        for ground in ("dusk", "dusk-raised"):
            assert site_files.contrast(far[1], tokens(scheme)[ground]) >= 4.5


@pytest.mark.parametrize("color", ["red", "#fff", "#12345g", "#123456;}body{display:none"])
def test_a_color_that_is_none_changes_nothing(color: str) -> None:
    assert site_files.brand_css(color) == ""


def test_no_file_of_the_look_calls_another_host() -> None:
    for path in STATIC.rglob("*"):
        if path.suffix in {".css", ".js", ".svg"}:
            text = path.read_text().replace("http://www.w3.org/2000/svg", "")
            assert not re.search(r"https?://|//cdn|@import|eval\(|innerHTML", text), path


def test_light_or_dark_is_kept_in_this_browser(alices_browser: Client) -> None:
    assert "data-theme" not in alices_browser.get("/help/").content.decode()
    alices_browser.post("/account/theme/", {"theme": "dark"})
    assert ' data-theme="dark"' in alices_browser.get("/help/").content.decode()
    alices_browser.post("/account/theme/", {"theme": '"><script>'})
    assert "data-theme" not in alices_browser.get("/help/").content.decode()


def test_times_are_in_the_persons_zone(alices_browser: Client, alice: User, laptop: Device) -> None:
    moment = timezone.now().replace(hour=12, minute=30, second=0)
    scan = scan_of(laptop, time=moment - timedelta(days=1))
    address = f"/reports/scans/{scan.uid}/"
    assert "12:30 UTC" in alices_browser.get(address).content.decode()
    assert alices_browser.post("/zone/", {"zone": "Asia/Tokyo"}).status_code == 204
    assert "21:30 JST" in alices_browser.get(address).content.decode()
    alices_browser.post("/account/", {"name": "Alice", "zone": "Pacific/Honolulu"})
    assert "02:30 HST" in alices_browser.get(address).content.decode()
    assert alices_browser.post("/zone/", {"zone": "../../etc/passwd"}).status_code == 422
    alices_browser.cookies["dw_zone"] = "../../etc/passwd"
    assert alices_browser.get(address).status_code == 200


def test_a_zone_nobody_offered_is_refused(alices_browser: Client, alice: User) -> None:
    answer = alices_browser.post("/account/", {"name": "Alice", "zone": "Mars/Base"})
    assert answer.status_code == 422
    alice.refresh_from_db()
    assert alice.zone == ""


@pytest.mark.parametrize(
    ("seconds", "words"),
    [
        (5, "just now"),
        (240, "4 min ago"),
        (7300, "2 hr ago"),
        (90000, "1 day ago"),
        (40 * 86400, "1 month ago"),
        (800 * 86400, "2 years ago"),
    ],
)
def test_ages_are_said_as_people_say_them(seconds: int, words: str) -> None:
    assert look.age_words(timedelta(seconds=seconds)) == words


@pytest.mark.parametrize(
    ("agent", "words"),
    [
        (
            "Mozilla/5.0 (X11; Linux x86_64; rv:140.0) Gecko/20100101 Firefox/140.0",
            "Firefox on Linux",
        ),
        ("Mozilla/5.0 (iPhone; CPU iPhone OS 18_0 like Mac OS X) Safari/604.1", "Safari on iPhone"),
        ("curl/8", "curl/8"),
        ("", "An unknown browser"),
    ],
)
def test_a_browser_is_called_what_people_call_it(agent: str, words: str) -> None:
    assert telling.browser(agent) == words


@pytest.mark.parametrize(
    ("path", "name"),
    [
        ("/home/alice/invoice.com", "invoice.com"),
        ("C:\\Users\\Alice\\invoice.com", "invoice.com"),
        ("\\\\server\\share\\a.exe", "a.exe"),
        ("/srv/one\\name", "one\\name"),
        ("/", "/"),
        ("", ""),
        ("/a/", "a"),
    ],
)
def test_the_last_part_of_a_path_is_the_files_name_on_every_system(path: str, name: str) -> None:
    assert telling.file_name(path) == name


def test_the_app_can_be_installed(client: Client, db: None) -> None:
    manifest = client.get("/manifest.webmanifest", HTTP_HOST="localhost").json()
    assert manifest["start_url"] == "/"
    for icon in manifest["icons"]:
        path = STATIC.parent / icon["src"].removeprefix("/static/")
        width = int(icon["sizes"].split("x")[0])
        header = path.read_bytes()[:24]
        assert int.from_bytes(header[16:20], "big") == width


def test_the_worker_keeps_no_page_of_a_person(alices_browser: Client) -> None:
    script = alices_browser.get("/service-worker.js").content.decode()
    kept = re.search(r"KEPT = (\[.*?\]);", script)
    assert kept is not None
    assert '"/offline/"' in kept[1]
    assert "alice" not in alices_browser.get("/offline/").content.decode().lower()
