"""A new list of hashes, from the operator's command to the file that is found by it."""

from __future__ import annotations

import contextlib
import dataclasses
import hashlib
import json
import os
import shutil
import socket
import subprocess
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from server.tests import postgres
from tests.agent_at_work import enrolled, status, until, working_agent
from tests.conftest import Server, agent, free_port, new_installed, new_server
from tests.journeys.people import Alice, Member

from doorward_agent import identity

PASSPHRASE = "correct horse battery staple"
NO_CHANGE_BYTES = 1000
SIZE_OF_500_HASHES = 30_000


class Olga:
    """The operator of a server, with keys in a folder of her own."""

    def __init__(self, server: Server, folder: Path) -> None:
        self.server, self.folder = server, folder
        folder.mkdir(parents=True)
        (folder / "passphrase").write_text(PASSPHRASE)
        (folder / "clean").mkdir()
        (folder / "clean" / "letter").write_text("Dear Alice")
        self._secret = ["--passphrase-file", str(folder / "passphrase")]

    def does(self, *words: str) -> str:
        done = self.server.run(*words)
        assert done.returncode == 0, done.stderr + done.stdout
        return done.stdout

    def makes_keys(self) -> None:
        self.does("definitions-keys", "make", str(self.folder / "keys"), *self._secret)

    def imports(self, texts: list[str], name: str = "list") -> dict[str, Any]:
        path = self.folder / f"{name}.txt"
        path.write_text("".join(f"{_sha256(text)}; Family\n" for text in texts))
        found = json.loads(
            self.does(
                *("import-definitions", str(path), "--json", "--clean"),
                *(str(self.folder / "clean"), "--keys", str(self.folder / "keys")),
                *self._secret,
            )
        )
        assert isinstance(found, dict)
        return found


def _sha256(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()


class Wire:
    """A way to the server on which every byte is counted, both ways."""

    def __init__(self, to: int) -> None:
        self.port, self._to = free_port(), to
        self.bytes = 0
        self._door = socket.create_server(("127.0.0.1", self.port))
        self._open: list[socket.socket] = [self._door]
        threading.Thread(target=self._serve, daemon=True).start()

    def _serve(self) -> None:
        while True:
            try:
                near, _ = self._door.accept()
            except OSError:
                return
            far = socket.create_connection(("127.0.0.1", self._to))
            self._open += [near, far]
            for one, other in ((near, far), (far, near)):
                threading.Thread(target=self._pass_on, args=(one, other), daemon=True).start()

    def _pass_on(self, one: socket.socket, other: socket.socket) -> None:
        try:
            while data := one.recv(65536):
                self.bytes += len(data)
                other.sendall(data)
            other.shutdown(socket.SHUT_WR)
        except OSError:
            return  # One end has gone; both are closed at the end.

    def close(self) -> None:
        with contextlib.suppress(OSError):
            self._door.shutdown(socket.SHUT_RDWR)
        for each in self._open:
            each.close()


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory, installed: Path) -> Iterator[Server]:
    """A server that gives sets to everybody soon, and serves a ClamAV mirror."""
    folder = tmp_path_factory.mktemp("server")
    mirror = folder / "mirror"
    mirror.mkdir()
    running = new_installed(
        installed,
        folder / "data",
        DOORWARD_DEFINITIONS_EARLY_HOURS="0",
        DOORWARD_CLAMAV_MIRROR=str(mirror),
    )
    running.start()
    yield running
    running.stop()


@pytest.fixture(scope="module")
def olga(server: Server, tmp_path_factory: pytest.TempPathFactory) -> Olga:
    made = Olga(server, tmp_path_factory.mktemp("olga") / "own")
    made.makes_keys()
    return made


def test_a_new_list_of_hashes_reaches_a_device_by_command_and_finds_its_file(
    olga: Olga, alice: Alice, member: Member, state: Path, tmp_path: Path
) -> None:
    home = tmp_path / "home"
    home.mkdir()
    (home / "invoice.txt").write_text("a threat nobody knew")
    device = enrolled(state, olga.server, alice.codes()[0])
    # A call that is held tells of a new set when it ends: after these seconds, not after 50.
    who = identity.load(state)
    assert who is not None
    identity.save(state, dataclasses.replace(who, wait=5))
    with working_agent(state):
        made = olga.imports(["a threat nobody knew"])
        assert (made["imported"], made["hashes"], made["refused"]) == (True, 1, [])
        until(lambda: status(state)["definitions"]["wanted"] == made["set"], 90)  # type: ignore[index]  # JSON
        done = member.wait_for(member.ask(device, "definitions.update"), "done", "failed")
        assert (done["state"], done["code"]) == ("done", ""), done
        assert str(made["set"]) in done["detail"]
        assert status(state)["definitions_version"] == made["set"]
        found = agent(state, "scan", "--json", str(home))
        assert found.returncode == 1
        assert not (home / "invoice.txt").exists(), "it was put away"
        until(lambda: len(alice.sees()["findings"]) == 1)
        # What the operator sees is what the device told, at once.
        until(lambda: _taken(olga, made["set"]) == 1)


def _taken(olga: Olga, number: int) -> int:
    found = json.loads(olga.does("definitions", "status", "--json"))
    return next(int(one["taken"]) for one in found["sets"] if one["number"] == number)


def test_a_command_to_update_tells_the_truth_when_nothing_can_be_taken(
    olga: Olga, alice: Alice, member: Member, state: Path
) -> None:
    olga.imports(["one more threat"], name="truth")
    device = enrolled(state, olga.server, alice.codes()[0])
    served = olga.server.data / "definitions" / "repository" / "timestamp.json"
    whole = served.read_bytes()
    with working_agent(state):
        try:
            served.write_bytes(whole.replace(b'"sig":"', b'"sig":"00'))
            done = member.wait_for(member.ask(device, "definitions.update"), "done", "failed")
        finally:
            served.write_bytes(whole)
        assert (done["state"], done["code"]) == ("failed", "wrong-key"), done
        told = status(state)["definitions"]
        assert isinstance(told, dict)
        assert told["code"] == "wrong-key"


def test_no_change_costs_at_most_1_kb_and_500_hashes_30_kb_on_the_wire(
    olga: Olga, alice: Alice, state: Path
) -> None:
    wire = Wire(olga.server.device_port)
    old = [f"old {number}" for number in range(2000)]
    made = olga.imports(old, name="large")
    enrolled(state, olga.server, alice.codes()[0])
    _hear(state, made["set"])
    assert agent(state, "update").returncode == 0
    who = identity.load(state)
    assert who is not None
    identity.save(state, dataclasses.replace(who, server=f"http://127.0.0.1:{wire.port}"))
    assert json.loads(agent(state, "update", "--json").stdout)["updated"] is False
    no_change, wire.bytes = wire.bytes, 0
    made = olga.imports(old + [f"new {number}" for number in range(500)], name="large")
    _hear(state, made["set"])
    assert json.loads(agent(state, "update", "--json").stdout) == {
        "updated": True,
        "set": made["set"],
    }
    hashes = wire.bytes
    wire.close()
    print(f"no change: {no_change} bytes, 500 hashes: {hashes} bytes")  # noqa: T201 - shown by -s
    assert 0 < no_change <= NO_CHANGE_BYTES
    assert 500 * 32 < hashes <= SIZE_OF_500_HASHES


def _hear(state: Path, wanted: int) -> None:
    """What a check-in would tell; these journeys have no agent at work."""
    from doorward_agent import database, upkeep

    db = database.open_in(state)
    upkeep.hear(db, wanted, None)
    db.close()


def test_freshclam_asks_the_mirror_and_is_answered(olga: Olga, tmp_path: Path) -> None:
    freshclam = shutil.which("freshclam")
    if freshclam is None:
        pytest.skip("ClamAV is not installed")
    mirror = Path(olga.server.environment["DOORWARD_CLAMAV_MIRROR"])
    # A database needs ClamAV's own signature; its head is enough for freshclam to ask on.
    head = (
        "ClamAV-VDB:22 Nov 2026 09-00 +0000:27900:2000000:90:" + "0" * 32 + ":x:builder:1795338000"
    )
    (mirror / "daily.cvd").write_bytes(head.encode().ljust(512) + bytes(200_000))
    base = f"{olga.server.device_url}/device/v1/clamav"
    (tmp_path / "database").mkdir(mode=0o777)
    config = tmp_path / "freshclam.conf"
    config.write_text(
        f"DatabaseDirectory {tmp_path / 'database'}\nDatabaseMirror {base}\n"
        "ScriptedUpdates no\nDatabaseOwner root\nTestDatabases no\nBytecode no\n"
        f"PrivateMirror {base}\n"
    )
    done = subprocess.run(
        [freshclam, "--config-file", str(config), "--stdout", "--verbose", "--update-db=daily"],
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
        env={**os.environ, "no_proxy": "127.0.0.1"},
    )
    assert "/device/v1/clamav/daily.cvd" in done.stdout
    assert "HTTP/1.1 206" in done.stdout, "the head by a range"
    assert "27900" in done.stdout, "it read the version from our answer"


@pytest.mark.slow
def test_the_operators_commands_do_on_postgresql_what_they_do_on_sqlite(tmp_path: Path) -> None:
    """Each a process of its own over a server's real database; nothing is started beside them."""
    told = []
    for kind in ("sqlite", "postgresql"):
        running = postgres.running() if kind == "postgresql" else contextlib.nullcontext("")
        with running as url:
            olga = Olga(
                new_server(tmp_path / kind / "data", DOORWARD_DATABASE_URL=url),
                tmp_path / kind / "olga",
            )
            olga.makes_keys()
            first = olga.imports(["one", "two"])
            second = olga.imports(["three"], name="other")
            signed = ["--keys", str(olga.folder / "keys"), *olga._secret]
            olga.does("definitions", "pause", str(second["set"]))
            olga.does("definitions", "release", str(second["set"]))
            olga.does("definitions", "take-back", "--to", str(first["set"]), *signed)
            olga.does("definitions", "remove", "list", *signed)
            state = json.loads(olga.does("definitions", "status", "--json"))
            told.append(
                (
                    [(one["number"], one["rules"], one["hashes"]) for one in state["sets"]],
                    [(one["name"], one["hashes"]) for one in state["sources"]],
                    state["devices"],
                )
            )
    assert told[0] == told[1]
    assert told[0][0]
