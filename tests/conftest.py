"""The real server and the real agent, as processes, for journeys, browsers and drills."""

from __future__ import annotations

import contextlib
import email
import email.policy
import fcntl
import hashlib
import os
import re
import shutil
import socket
import subprocess
import sys
import tempfile
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
READY_WITHIN_S = 60.0
A_DAY_S = 86_400


def free_port() -> int:
    """Return a port that nothing listens on right now."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


@dataclass
class Server:
    """A real `doorward serve` on loopback, with its data folder."""

    data: Path
    port: int
    device_port: int
    environment: dict[str, str]
    process: subprocess.Popen[bytes] | None = None

    @property
    def url(self) -> str:
        """The people's door."""
        return f"http://localhost:{self.port}"

    @property
    def device_url(self) -> str:
        """The devices' door."""
        return f"http://127.0.0.1:{self.device_port}"

    def start(self) -> None:
        """Start it and wait until both doors are open."""
        doors = ["--port", str(self.port), "--device-port", str(self.device_port)]
        with (self.data / "serve.log").open("ab") as log:
            self.process = subprocess.Popen(
                [sys.executable, "-m", "doorward", "serve", "--data", str(self.data), *doors],
                env={**os.environ, **self.environment},
                stdout=log,
                stderr=log,
                start_new_session=True,
            )
        deadline = time.monotonic() + READY_WITHIN_S
        for port in (self.port, self.device_port):
            while not is_open(f"http://127.0.0.1:{port}/health/ready"):
                if time.monotonic() > deadline or self.process.poll() is not None:
                    self.kill()
                    pytest.fail(f"the server did not start:\n{self.log()}")
                time.sleep(0.05)

    def stop(self) -> None:
        """Stop it in good order."""
        if self.process is None:
            return
        self.process.terminate()
        try:
            self.process.wait(30)
        except subprocess.TimeoutExpired:
            self.kill()
            raise
        self.process = None

    def kill(self) -> None:
        """End its supervisor at once, without a chance to tidy up."""
        if self.process is not None:
            self.process.kill()
            self.process.wait()
            self.process = None

    def log(self) -> str:
        """Return what it printed so far."""
        return (self.data / "serve.log").read_text(errors="replace")

    def run(self, *words: str) -> subprocess.CompletedProcess[str]:
        """Run one of the operator's commands on the same data folder."""
        return subprocess.run(
            [sys.executable, "-m", "doorward", *words, "--data", str(self.data)],
            env={**os.environ, **self.environment},
            capture_output=True,
            text=True,
            check=False,
            timeout=60,
        )

    def mails(self, to: str) -> list[str]:
        """Return the text of each mail to this address, oldest first."""
        texts = []
        for raw in _read_oldest_first(self.data / "mail"):
            message = email.message_from_bytes(raw, policy=email.policy.default)
            body = message.get_body(("plain",))
            if to in str(message["To"]) and body is not None:
                texts.append(f"{message['Subject']}\n\n{body.get_content()}")
        return texts

    def mailed_code(self, to: str, *, seconds: float = 15) -> str:
        """Return the newest confirmation code mailed to this address, waiting for it to arrive."""
        deadline = time.monotonic() + seconds
        while time.monotonic() < deadline:
            for text in reversed(self.mails(to)):
                found = re.search(r"^\s*([A-Z0-9]{3,4}-?[A-Z0-9]{3,4})\s*$", text, re.MULTILINE)
                if found:
                    return found[1]
            time.sleep(0.05)
        pytest.fail(f"no code was mailed to {to} in {seconds} s; mails: {self.mails(to)}")


def _read_oldest_first(folder: Path) -> list[bytes]:
    # With a person, the server deletes the mails to them, and may do so between our looking at the
    # folder and our reading.
    found = []
    for path in folder.glob("*.eml"):
        with contextlib.suppress(FileNotFoundError):
            found.append((path.stat().st_mtime_ns, path.read_bytes()))
    return [raw for _, raw in sorted(found)]


def is_open(address: str) -> bool:
    """Whether this address answers 200."""
    try:
        with urllib.request.urlopen(address, timeout=2) as answer:  # noqa: S310 - our own http address
            return bool(answer.status == 200)
    except (urllib.error.URLError, OSError):
        return False


def new_server(data: Path, **environment: str) -> Server:
    """Return a server that was not started yet, with doors of its own."""
    data.mkdir(parents=True, exist_ok=True)
    return Server(data, free_port(), free_port(), environment)


@pytest.fixture(scope="session")
def installed(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return the data folder of a server that was started once and stopped, to copy.

    Making all tables takes longer than anything else of a start. Kept from run to run for as long
    as the server's code is the same; every worker of a run waits for the one that makes it.
    """
    code = hashlib.sha256()
    for path in sorted((ROOT / "server" / "src").rglob("*.py")):
        code.update(path.read_bytes())
    cache = getattr(request.config, "cache", None)
    kept: Path = cache.mkdir("installed") if cache else tmp_path_factory.mktemp("installed")
    found = kept / code.hexdigest()[:16]
    with (kept / "lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not found.exists():
            for old in kept.glob("[0-9a-f]*"):
                if time.time() - old.stat().st_mtime > A_DAY_S:
                    shutil.rmtree(old)
            with tempfile.TemporaryDirectory(dir=kept) as folder:
                first = new_server(Path(folder) / "data")
                first.start()
                first.stop()
                (first.data / "serve.log").unlink()
                first.data.rename(found)
    return found


def new_installed(installed: Path, data: Path, **environment: str) -> Server:
    """Return a server that has all its tables in SQLite, and was not started yet."""
    shutil.copytree(installed, data, dirs_exist_ok=True)
    return new_server(data, **environment)


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory, installed: Path) -> Iterator[Server]:
    """One real server for the journeys of a file; each makes its own people.

    Not one for all: twenty people an hour may sign up from one address, and that is us.
    """
    running = new_installed(installed, tmp_path_factory.mktemp("server"))
    running.start()
    yield running
    running.stop()


@pytest.fixture
def own_server(tmp_path: Path, installed: Path) -> Iterator[Server]:
    """A real server for one test alone, that it may stop, kill and start again."""
    running = new_installed(installed, tmp_path / "server")
    running.start()
    yield running
    running.stop()


def agent(state: Path, *words: str, check: bool = False) -> subprocess.CompletedProcess[str]:
    """Run one command of the real agent on its own state folder."""
    return subprocess.run(
        [sys.executable, "-m", "doorward_agent", *words, "--state", str(state)],
        capture_output=True,
        text=True,
        check=check,
        timeout=120,
    )


@pytest.fixture(scope="session")
def chromium() -> str:
    """Where Chromium is; without it the test is skipped aloud, in CI it fails."""
    found = shutil.which("chromium") or shutil.which("chromium-browser")
    if found and "DOORWARD_NO_BROWSER" not in os.environ:
        return found
    if os.environ.get("CI"):
        pytest.fail("Chromium is missing, and CI never skips")
    pytest.skip("Chromium, or a library that driving it needs, is not installed")
