"""`./doorward test`: every suite, the server's on SQLite and again on PostgreSQL.

`--slow` runs the long drills instead; `--checks` runs nothing and prints which tests stand behind
each security check and how they went last. Any other words go to one pytest run as they are.
"""

from __future__ import annotations

import importlib.util
import os
import re
import shutil
import subprocess
import sys
import time
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
# What these hold to a second, or to a core, is not held while others work beside them.
IN_A_SECOND = "tests/browser/test_scan_now.py"
BY_THE_SECOND = (
    "tests/bench",
    "tests/drills/test_tokens_die_on_both_portals.py",
    "tests/journeys/test_commands.py::test_n4_scan_now_runs_within_a_second_moves_and_is_done",
    "tests/journeys/test_real_time.py",
    "tests/operate/test_serve.py",
)
# The agent's doing, whatever database the server has.
AGENT_ALONE = (
    "tests/definitions/test_sets.py"
    "::test_d_kill_9_at_every_step_of_an_update_leaves_a_whole_set_in_force"
)
PROCESSES = str(min(4, os.cpu_count() or 1))


def pytest(*words: str) -> list[str]:
    """Return the command for one pytest run."""
    return [sys.executable, "-m", "pytest", "-q", "--durations=5", *words]


def parallel(*words: str) -> list[str]:
    """Return the command for a run spread over the cores, a file's tests staying together."""
    return pytest("-n", PROCESSES, "--dist", "loadfile", *words)


def suites(*, slow: bool) -> list[tuple[str, list[str]]]:
    """Return each run: what to call it and its command."""
    postgres = [sys.executable, str(ROOT / "server" / "tests" / "postgres.py")]
    if slow:
        return [("slow drills", pytest("-m", "slow", "-s", "agent/tests", "server/tests", "tests"))]
    return [
        ("protocol and agent", parallel("-m", "not slow", "protocol/tests", "agent/tests")),
        ("server on SQLite", parallel("-m", "not slow", "server/tests")),
        (
            "server on PostgreSQL",
            [
                *postgres,
                *parallel("-m", "not slow", "server/tests", "tests/definitions"),
                f"--deselect={AGENT_ALONE}",
            ],
        ),
        # Apart: the browser's own event loop stays in its process to the end.
        ("browser", parallel("-m", "not slow", "tests/browser", f"--ignore={IN_A_SECOND}")),
        ("browser, by the second", pytest("-m", "not slow", IN_A_SECOND)),
        (
            "journeys, drills, docs",
            parallel(
                *("-m", "not slow", "tests", "--ignore=tests/browser"),
                *(f"--{'deselect' if '::' in path else 'ignore'}={path}" for path in BY_THE_SECOND),
            ),
        ),
        ("journeys, by the second", pytest("-m", "not slow", *BY_THE_SECOND)),
    ]


def prepare_browser() -> None:
    """Have Chromium, by apt when root; else browser tests are skipped aloud (CI never skips)."""
    missing = missing_packages()
    if not missing:
        return
    apt = shutil.which("apt-get")
    if apt and os.geteuid() == 0:
        say(f"installing by apt what the suites need: {', '.join(missing)}")
        environment = {**os.environ, "DEBIAN_FRONTEND": "noninteractive"}
        install = [apt, "install", "-y", "-qq", "--no-install-recommends", *missing]
        for command in ([apt, "update", "-qq"], install):
            subprocess.run(command, check=False, env=environment, stdout=subprocess.DEVNULL)
        missing = missing_packages()
    if not missing:
        return
    if os.environ.get("CI"):
        say(f"{', '.join(missing)} can't be had, and CI skips neither browsers nor benches")
        sys.exit(1)
    # Read by tests/conftest.py: half a browser is none.
    os.environ["DOORWARD_NO_BROWSER"] = "yes"
    say(
        f"NO {' '.join(missing).upper()}: every browser journey is SKIPPED. "
        f"On Debian: sudo apt install {' '.join(missing)}"
    )


def missing_for_browsers() -> list[str]:
    """Return the Debian packages that a browser journey still needs here."""
    missing = []
    if not (shutil.which("chromium") or shutil.which("chromium-browser")):
        missing.append("chromium")
    found = importlib.util.find_spec("playwright")
    if found is None or found.origin is None:
        return missing
    # Playwright brings its own Node.js, which a smallest Debian lacks one library for.
    driver = Path(found.origin).parent / "driver" / "node"
    started = subprocess.run([driver, "--version"], check=False, capture_output=True)
    if started.returncode:
        missing.append("libatomic1")
    return missing


def missing_packages() -> list[str]:
    """Return the Debian packages that the suites still need here.

    Those of the benches only in CI: on a person's machine, where a bench without them is skipped
    aloud, the package of a web server would start one.
    """
    missing = missing_for_browsers()
    if os.environ.get("CI"):
        programs = {"nginx-light": "nginx", "wrk": "wrk"}
        missing += [name for name, word in programs.items() if shutil.which(word) is None]
    return missing


def say(sentence: str) -> None:
    """Tell the person at the terminal, apart from what pytest prints."""
    sys.stdout.write(f"\n=== {sentence}\n")
    sys.stdout.flush()


def main(words: list[str]) -> int:
    """Run what was asked for; 0 when everything passed."""
    if set(words) & {"-h", "--help"}:
        sys.stdout.write(f"usage: ./doorward test [--slow | --checks | PYTEST WORDS]\n\n{__doc__}")
        return 0
    if words == ["--checks"]:
        sys.path.insert(0, str(ROOT))
        from tests.tools import checks

        return checks.main()
    slow = words == ["--slow"]
    if words and not slow:
        prepare_browser()
        return subprocess.run(pytest(*words), cwd=ROOT, check=False).returncode
    prepare_browser()
    lines = []
    failed = False
    for name, command in suites(slow=slow):
        say(name)
        # How each test went, for --checks; what a run before found out holds no more.
        kept = ROOT / ".checks" / f"{re.sub(r'[^a-z]+', '-', name.lower())}.json"
        kept.unlink(missing_ok=True)
        began = time.monotonic()
        environment = {**os.environ, "DOORWARD_KEEP_RESULTS": str(kept)}
        status = subprocess.run(command, cwd=ROOT, check=False, env=environment).returncode
        failed = failed or status != 0
        result = "passed" if status == 0 else "FAILED"
        lines.append(f"{name:<26}{result}  {time.monotonic() - began:.0f} s")
    say("all suites" if not failed else "all suites, some FAILED")
    sys.stdout.write("\n".join(lines) + "\n")
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
