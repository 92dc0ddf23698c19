"""What operators rely on: starting, stopping, falling over, refusing what is unsafe."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import psutil
import pytest
from tests.conftest import Server, is_open, new_server


def children_named(server: Server, name: str) -> list[psutil.Process]:
    """Return the processes of this kind that the server's supervisor started."""
    assert server.process is not None
    children = psutil.Process(server.process.pid).children(recursive=True)
    named = []
    for child in children:
        with contextlib.suppress(psutil.Error):  # it has just ended
            if name in child.cmdline():
                named.append(child)
    return named


def wait_for(condition: object, *, seconds: float = 20) -> None:
    """Wait until the condition holds; fail when it does not in time."""
    deadline = time.monotonic() + seconds
    while not condition():  # type: ignore[operator]  # a callable without arguments
        assert time.monotonic() < deadline, "it did not happen in time"
        time.sleep(0.05)


def test_each_door_says_that_it_lives_and_is_ready(server: Server) -> None:
    for door in (f"http://127.0.0.1:{server.port}", server.device_url):
        assert is_open(f"{door}/health/live")
        assert is_open(f"{door}/health/ready")


@pytest.mark.parametrize("name", ["portal", "gateway"])
def test_d20_a_killed_door_opens_again_within_five_seconds(own_server: Server, name: str) -> None:
    port = own_server.port if name == "portal" else own_server.device_port
    for process in children_named(own_server, name):
        process.kill()
    wait_for(lambda: is_open(f"http://127.0.0.1:{port}/health/ready"), seconds=5)


def test_several_gateways_share_one_door_and_a_killed_one_comes_back(
    tmp_path: Path,
) -> None:
    several = new_server(tmp_path / "data", DOORWARD_GATEWAY_PROCESSES="3")
    several.start()
    try:
        # One watches over three.
        wait_for(lambda: len(children_named(several, "gateway")) == 4)
        _, *serving = children_named(several, "gateway")
        serving[1].kill()
        wait_for(
            lambda: (
                len([one for one in children_named(several, "gateway") if one.is_running()]) == 4
            )
        )
        wait_for(lambda: is_open(f"{several.device_url}/health/ready"))
        family = children_named(several, "gateway")
    finally:
        several.stop()
    assert not [process for process in family if process.is_running()]


def test_everything_stops_together_and_leaves_no_process(own_server: Server) -> None:
    assert own_server.process is not None
    family = psutil.Process(own_server.process.pid).children(recursive=True)
    own_server.stop()
    assert not [process for process in family if process.is_running()]


def test_no_door_outlives_a_killed_supervisor(own_server: Server) -> None:
    assert own_server.process is not None
    family = psutil.Process(own_server.process.pid).children(recursive=True)
    os.kill(own_server.process.pid, signal.SIGKILL)
    own_server.process.wait()
    own_server.process = None
    wait_for(lambda: not [process for process in family if process.is_running()], seconds=20)


def test_two_starters_at_once_migrate_once(tmp_path: Path) -> None:
    with ThreadPoolExecutor(2) as pool:
        answers = list(
            pool.map(lambda _: doorward("audit", "verify", "--data", str(tmp_path / "new")), "ab")
        )
    assert [answer.returncode for answer in answers] == [0, 0], answers


def test_a_second_serve_on_one_folder_is_refused_until_the_first_is_gone(
    own_server: Server,
) -> None:
    assert own_server.process is not None
    second = new_server(own_server.data)
    answer = second.run(
        "serve", "--port", str(second.port), "--device-port", str(second.device_port)
    )
    assert answer.returncode == 2
    assert f"process {own_server.process.pid}" in answer.stderr
    assert "--data" in answer.stderr
    # A crash leaves nothing to clean up, also while its children still end.
    own_server.kill()
    second.start()
    second.stop()


def test_a_database_that_others_could_read_is_closed_at_the_start(own_server: Server) -> None:
    own_server.stop()
    database = own_server.data / "doorward.sqlite3"
    database.chmod(0o644)
    own_server.start()
    readable = [path.name for path in own_server.data.iterdir() if path.stat().st_mode & 0o077]
    assert readable == ["serve.log"], "only what this test itself has opened"


def test_the_demo_says_that_its_folder_is_its_own(tmp_path: Path) -> None:
    answer = doorward("demo", "--data", str(tmp_path / "kept"))
    assert answer.returncode == 2
    assert "serve --data" in answer.stderr
    assert not (tmp_path / "kept").exists()


def test_a_taken_port_is_named_with_the_way_out(server: Server, tmp_path: Path) -> None:
    answer = doorward("serve", "--data", str(tmp_path), "--port", str(server.port))
    assert answer.returncode == 2
    assert f"port {server.port}" in answer.stderr
    assert "--port" in answer.stderr


@pytest.mark.parametrize(
    ("variable", "value", "words"),
    [
        ("DOORWARD_SITE_URL", "http://safe.example.org", "in clear"),
        ("DOORWARD_SITE_URL", "https://*.example.org", "one full address"),
        ("DOORWARD_SITE_URL", "safe.example.org", "one full address"),
        ("DOORWARD_TRUSTED_PROXIES", "many", "whole number"),
        ("DOORWARD_TRUSTED_PROXIES", "99", "from 0 to 10"),
        ("DOORWARD_DATABASE_URL", "mysql://root@localhost/x", "postgres://"),
        ("DOORWARD_ALLOW_INSECURE_SITE", "perhaps", "yes or no"),
    ],
)
def test_unsafe_or_unreadable_settings_stop_the_start_with_a_sentence(
    tmp_path: Path, variable: str, value: str, words: str
) -> None:
    answer = doorward("serve", "--data", str(tmp_path), **{variable: value})
    assert answer.returncode == 2
    assert words in answer.stderr
    assert "Traceback" not in answer.stderr


def test_a_data_folder_that_cannot_be_written_is_named(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    answer = doorward("serve", "--data", str(tmp_path / "file"))
    assert answer.returncode == 2
    assert "data folder" in answer.stderr


@pytest.mark.parametrize(
    "words", [(), ("no-such-command",), ("serve", "what"), ("serve", "--port")]
)
def test_wrong_use_ends_with_two_and_a_way_on(words: tuple[str, ...]) -> None:
    answer = doorward(*words)
    assert answer.returncode == 2
    assert answer.stdout + answer.stderr
    assert "Traceback" not in answer.stderr


@pytest.mark.parametrize(
    "command", ["doctor", "backup", "restore", "audit", "create-operator", "serve"]
)
def test_every_command_has_help(command: str) -> None:
    answer = doorward(command, "--help")
    assert answer.returncode == 0
    assert "usage" in answer.stdout


def test_the_keys_are_readable_by_their_owner_alone(server: Server) -> None:
    for key in (server.data / "keys").iterdir():
        assert key.stat().st_mode & 0o077 == 0


def doorward(*words: str, **environment: str) -> subprocess.CompletedProcess[str]:
    """Run one command of the server."""
    return subprocess.run(
        [sys.executable, "-m", "doorward", *words],
        env={**os.environ, **environment},
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
    )
