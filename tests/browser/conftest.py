"""A person at a real browser: what they type and see, and everything a page did wrong meanwhile."""

from __future__ import annotations

import secrets
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Any, Final, Literal

import pytest
from axe_playwright_python.sync_playwright import Axe  # type: ignore[import-untyped]  # ships no types
from playwright.sync_api import Browser, ConsoleMessage, Page, sync_playwright

FLAGS: Final = (
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
)
PHONE: Final = (390, 844)
DESK: Final = (1280, 900)
Scheme = Literal["light", "dark"]
SIZES: Final = pytest.mark.parametrize(
    ("size", "scheme"),
    [
        pytest.param(PHONE, "dark", id="phone-dark"),
        pytest.param(DESK, "light", id="desk-light", marks=pytest.mark.slow),
    ],
)
"""Walk it on a phone at night, and among the slow drills at a desk by day: between them every size
and every scheme. The way from sign-up to a threat is always walked in both."""
# Told through a binding, so that a violation on any page of a journey is seen at its end.
WATCH: Final = """
document.addEventListener("securitypolicyviolation",
  (event) => window.tellViolation(`${event.violatedDirective} ${event.blockedURI}`));
"""
# What htmx says of a request that ended because its page was left while it was under way. One that
# failed says `htmx:sendError` besides the first.
LEFT: Final = ("htmx:afterRequest", "htmx:sendAbort")
# What fades in is judged when it is there.
# A part of the page that is drawn anew takes its motion away: that one has settled, too.
SETTLE: Final = """
Promise.allSettled(document.getAnimations()
  .filter((motion) => motion.effect.getTiming().iterations !== Infinity)
  .map((motion) => motion.finished))
"""


@dataclass
class Visitor:
    """Somebody at a browser window, and what went wrong on the pages they saw."""

    page: Page
    site: str
    problems: list[str] = field(default_factory=list)

    def open(self, path: str) -> None:
        """Type an address of the site."""
        self.page.goto(f"{self.site}{path}")

    def look_around(self, where: str) -> None:
        """Let axe judge the page, and see that nothing is wider than the window."""
        # A form's answer may be readable before its style sheet is there.
        self.page.wait_for_load_state("load")
        self.page.evaluate(SETTLE)
        found = Axe().run(self.page)
        if found.violations_count:
            self.problems.append(f"axe, {where}: {found.generate_report()}")
        wide = self.page.evaluate("document.documentElement.scrollWidth - window.innerWidth")
        if wide > 0:
            self.problems.append(f"{where} is {wide} px wider than the window")

    def hear_violation(self, told: str) -> None:
        """Remember what the Content-Security-Policy stopped."""
        self.problems.append(f"policy, {self.page.url}: {told}")

    def hear(self, message: ConsoleMessage) -> None:
        """Remember what the browser complained about."""
        if message.type in {"error", "warning"} and not message.text.startswith(LEFT):
            self.problems.append(f"console, {self.page.url}: {message.text}")


NewVisitor = Callable[..., Visitor]


@pytest.fixture(scope="session")
def window(chromium: str) -> Iterator[Browser]:
    """One Chromium for the run; each visitor has cookies of their own."""
    with sync_playwright() as tools:
        browser = tools.chromium.launch(executable_path=chromium, args=list(FLAGS))
        yield browser
        browser.close()


@pytest.fixture
def new_visitor(window: Browser, server: Any) -> Iterator[NewVisitor]:
    """Make visitors; each one's problems fail the test at its end."""
    visitors: list[Visitor] = []

    def arrive(size: tuple[int, int] = DESK, scheme: Scheme = "light", **more: Any) -> Visitor:
        context = window.new_context(
            viewport={"width": size[0], "height": size[1]},
            color_scheme=scheme,
            timezone_id="Europe/Berlin",
            locale="en-US",
            **more,
        )
        visitor = Visitor(context.new_page(), server.url)
        context.expose_function("tellViolation", visitor.hear_violation)
        context.add_init_script(WATCH)
        visitor.page.on("console", visitor.hear)
        visitor.page.on("pageerror", lambda error: visitor.problems.append(f"script: {error}"))
        visitors.append(visitor)
        return visitor

    yield arrive
    problems = [problem for visitor in visitors for problem in visitor.problems]
    for visitor in visitors:
        visitor.page.context.close()
    assert not problems, "\n".join(problems)


def new_address(name: str) -> str:
    """Return an address that nobody has signed up with yet."""
    return f"{name}-{secrets.token_hex(4)}@example.org"
