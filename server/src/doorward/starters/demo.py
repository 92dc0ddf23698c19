"""`doorward demo`: a throw-away server where all is real: the sign-up, the agent, the find."""

from __future__ import annotations

import email
import email.policy
import os
import re
import secrets
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import time
from pathlib import Path
from typing import Any, Final

from doorward import keys
from doorward.starters.serve import DoorTaken, require_free_doors
from doorward.starters.supervisor import Supervisor, say, wait_until_ready

ALICE: Final = "alice@example.org"
# How it is called in the activity and among the known browsers that it leaves behind.
CALLED: Final = {"User-Agent": "The demo itself"}
MAIL_WITHIN_S: Final = 20.0
PORT_TRIES: Final = 50
# The test file every scanner knows (eicar.org), in two parts: this source must not be taken for it.
EICAR: Final = rb"X5O!P%@AP[4\PZX54(P^)7CC)7}$EICAR-" + rb"STANDARD-ANTIVIRUS-TEST-FILE!$H+H*"
CLEAN_FILES: Final = {
    "letters/to-bob.txt": "Bob, the key is under the third pot. Alice\n" * 40,
    "recipes/bread.md": "# Bread\n\n500 g flour, 350 g water, 10 g salt, a night of patience.\n",
    "accounts/2026.csv": "month,rent,food\n"
    + "".join(f"{m},900,{400 + m}\n" for m in range(1, 13)),
    "notes.txt": "Call the school. Water the plants.\n",
}


class DemoFailed(Exception):
    """A step of the demo did not do what it must; the text says which."""


def demo() -> int:
    """Show a running Doorward until Ctrl-C; nothing of it is left afterwards."""
    try:
        _choose_doors()
    except DoorTaken as taken:
        say(str(taken))
        return 2
    folder = Path(tempfile.mkdtemp(prefix="doorward-demo-"))
    try:
        return _show(folder)
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def _choose_doors() -> None:
    """Take the usual doors, or the next free ones unless they were named."""
    host = os.environ.get("DOORWARD_HOST", "127.0.0.1")
    for name, option, first in (
        ("DOORWARD_PORT", "--port", 8000),
        ("DOORWARD_DEVICE_PORT", "--device-port", 8001),
    ):
        if name in os.environ:
            require_free_doors(host, {option: int(os.environ[name])})
            continue
        port = first
        while not _is_free(host, port):
            port += 10
            if port > first + 10 * PORT_TRIES:
                raise DoorTaken(f"no free port was found. Choose one with {option}.")
        os.environ[name] = str(port)


def _is_free(host: str, port: int) -> bool:
    try:
        require_free_doors(host, {"": port})
    except (DoorTaken, socket.gaierror):
        return False
    return True


def _show(folder: Path) -> int:
    os.environ["DOORWARD_DATA"] = str(folder / "server")
    os.environ["DOORWARD_DEMO"] = "yes"
    keys.prepare(folder / "server")
    import django
    from django.conf import settings

    from doorward.starters import logs, ready

    logs.configure(settings.LOG_FORMAT)
    django.setup()
    say("preparing a throw-away server")
    ready.everything()
    supervisor = Supervisor(say)
    stopping = threading.Event()

    def stop(*_: object) -> None:
        stopping.set()
        supervisor.stop()

    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, stop)
    supervisor.start()
    story = threading.Thread(target=_tell, args=(folder, supervisor, stopping), daemon=True)
    story.start()
    supervisor.run()
    story.join(10)
    say("the demo is over; nothing is left of it")
    return 0 if stopping.is_set() else 1


def _tell(folder: Path, supervisor: Supervisor, stopping: threading.Event) -> None:
    from django.conf import settings

    site, devices = f"http://127.0.0.1:{settings.PORT}", f"http://127.0.0.1:{settings.DEVICE_PORT}"
    doors = [f"{door}/health/ready" for door in (site, devices)]
    if not wait_until_ready(doors, seconds=60, alive=lambda: not stopping.is_set()):
        if not stopping.is_set():
            say("the doors don't answer; the lines above say why")
            supervisor.stop()
        return
    say(f"serving {settings.SITE_URL} (preparing Alice and her laptop)")
    agent: subprocess.Popen[bytes] | None = None
    try:
        password = f"demo-{secrets.token_hex(8)}"
        token = _sign_up(site, settings.DATA / "mail", password)
        agent = _protect_a_laptop(folder, site, devices, token)
        _sign_out(site, token)
        say(
            f"ready\n\n  Sign in    {settings.SITE_URL}\n  Address    {ALICE}\n"
            f"  Password   {password}\n  Mailbox    {settings.SITE_URL}/demo/mailbox/\n"
            f"  Her files  {folder / 'laptop' / 'home'}\n"
            f"  Her agent  ./doorward agent status --state {folder / 'laptop' / 'state'}\n"
            "\n  Ctrl-C ends the demo.\n"
        )
        stopping.wait()
    except DemoFailed as failure:
        if not stopping.is_set():
            say(f"the demo could not go on: {failure}")
            supervisor.stop()
    finally:
        if agent is not None:
            agent.terminate()
            try:
                agent.wait(8)
            except subprocess.TimeoutExpired:
                agent.kill()


def _sign_up(site: str, mailbox: Path, password: str) -> str:
    """Sign Alice up the way an app does, with the code from her mail; her session's token."""
    started = _ask(
        f"{site}/_allauth/app/v1/auth/signup", {"email": ALICE, "password": password}, expected=401
    )
    token = str(started["meta"]["session_token"])
    done = _ask(
        f"{site}/_allauth/app/v1/auth/email/verify",
        {"key": _mailed_code(mailbox)},
        headers={"X-Session-Token": token},
        expected=200,
    )
    return str(done["meta"].get("session_token", token))


def _sign_out(site: str, token: str) -> None:
    """End the session that prepared everything: Alice finds only her own browsers listed."""
    import httpx2

    address = f"{site}/_allauth/app/v1/auth/session"
    httpx2.delete(address, headers={**CALLED, "X-Session-Token": token}, timeout=20)


def _mailed_code(mailbox: Path) -> str:
    deadline = time.monotonic() + MAIL_WITHIN_S
    while time.monotonic() < deadline:
        for path in mailbox.glob("*.eml"):
            message = email.message_from_bytes(path.read_bytes(), policy=email.policy.default)
            body = message.get_body(("plain",))
            found = body and re.search(
                r"^\s*([A-Z0-9]{3,4}-?[A-Z0-9]{3,4})\s*$", body.get_content(), re.MULTILINE
            )
            if found:
                return found[1]
        time.sleep(0.05)
    raise DemoFailed(f"no mail with a code came in {MAIL_WITHIN_S:.0f} s")


def _protect_a_laptop(folder: Path, site: str, devices: str, token: str) -> subprocess.Popen[bytes]:
    """Enroll a real agent, let it find the test file, and leave it running."""
    home, state = folder / "laptop" / "home", folder / "laptop" / "state"
    for name, text in CLEAN_FILES.items():
        path = home / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    (home / "downloads").mkdir()
    (home / "downloads" / "invoice.com").write_bytes(EICAR)
    answer = _ask(
        f"{site}/api/v1/devices/codes", {}, headers={"X-Session-Token": token}, expected=201
    )
    common = ("--state", str(state))
    _agent(
        "enroll", "--server", devices, "--code", str(answer["code"]), *common, "--name", "Laptop"
    )
    running = subprocess.Popen(  # noqa: S603 - our own interpreter and words
        # No scans of its own: they would look at, and put away, files outside of the demo.
        [sys.executable, "-m", "doorward_agent", "run", "--no-schedule", *common],
        stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
        start_new_session=True,
    )
    try:
        # Status 1: something was found, as it must be.
        _agent("scan", str(home), *common, expected=1)
    except DemoFailed:
        running.terminate()
        raise
    return running


def _agent(*words: str, expected: int = 0) -> None:
    done = subprocess.run(  # noqa: S603 - our own interpreter and words
        [sys.executable, "-m", "doorward_agent", *words],
        capture_output=True,
        text=True,
        check=False,
        timeout=120,
    )
    if done.returncode != expected:
        told = (done.stderr or done.stdout).strip()[-600:]
        raise DemoFailed(f"the agent's {words[0]} ended with {done.returncode}: {told}")


def _ask(
    address: str, body: dict[str, Any], *, expected: int, headers: dict[str, str] | None = None
) -> dict[str, Any]:
    import httpx2

    try:
        answer = httpx2.post(address, json=body, headers={**CALLED, **(headers or {})}, timeout=20)
    except httpx2.HTTPError as error:
        raise DemoFailed(f"{address} can't be reached: {error}") from None
    if answer.status_code != expected:
        raise DemoFailed(f"{address} answered {answer.status_code}: {answer.text[:300]}")
    content: dict[str, Any] = answer.json()
    return content
