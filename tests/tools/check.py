"""`./doorward check`: what a reader should not have to check by eye. Green at every commit."""

from __future__ import annotations

import subprocess
import sys
import time
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
BIN = Path(sys.executable).parent
PYTHON_FOLDERS = ("protocol", "agent", "server", "tests", "bench", "doorward")
PRODUCT = ("protocol/src", "agent/src", "server/src")
MYPY_FOLDERS = ("conftest.py", "protocol", "agent", "server", "tests", "bench")


def steps() -> list[tuple[str, list[str]]]:
    """Return each check: what to call it and its command."""
    templates = [str(path) for path in sorted(ROOT.glob("server/src/**/templates/**/*.html"))]
    return [
        ("format", [str(BIN / "ruff"), "format", "--check", *PYTHON_FOLDERS]),
        ("lint", [str(BIN / "ruff"), "check", *PYTHON_FOLDERS]),
        ("bandit", [str(BIN / "bandit"), "-q", "-c", "pyproject.toml", "-r", *PRODUCT]),
        ("imports", [str(BIN / "lint-imports")]),
        ("templates", [str(BIN / "djade"), "--check", "--target-version", "5.2", *templates]),
        (
            "migrations",
            [sys.executable, "-m", "django", "makemigrations", "--check", "--dry-run"],
        ),
        ("types", [str(BIN / "mypy"), *MYPY_FOLDERS]),
        (
            "docs",
            [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "tests/docs"],
        ),
    ]


def main(words: list[str]) -> int:
    """Run every check, also after one failed; 0 when all are green."""
    import os

    if words:
        sys.stdout.write(f"usage: ./doorward check\n\n{__doc__}\nIt runs, in this order:\n")
        sys.stdout.write("".join(f"  {name}\n" for name, _ in steps()))
        return 0 if set(words) & {"-h", "--help"} else 2

    os.environ["DJANGO_SETTINGS_MODULE"] = "doorward.settings"
    failed = []
    for name, command in steps():
        began = time.monotonic()
        answer = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
        took = time.monotonic() - began
        sys.stdout.write(
            f"{name:<12}{'ok' if answer.returncode == 0 else 'FAILED'}  {took:.1f} s\n"
        )
        if answer.returncode:
            failed.append(name)
            sys.stdout.write(answer.stdout + answer.stderr)
        sys.stdout.flush()
    if failed:
        sys.stdout.write(f"check: {', '.join(failed)} failed\n")
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
