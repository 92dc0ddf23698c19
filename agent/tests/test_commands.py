"""The commands as people use them: what they print, what they leave behind, how they end."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import signal
import sqlite3
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from doorward_agent import database, identity, link, lock, outbox, policy, protection, schedule
from doorward_agent.__main__ import main
from doorward_agent.config import AgentConfig, prepare
from doorward_agent.definitions.build import eicar
from doorward_protocol import protection as words

Output = pytest.CaptureFixture[str]


@pytest.fixture
def state(tmp_path: Path) -> Path:
    return tmp_path / "state"


@pytest.fixture(autouse=True)
def own_signals_and_priority(monkeypatch: pytest.MonkeyPatch) -> None:
    # The tests themselves go on at full speed.
    monkeypatch.setattr("doorward_agent.commands.scan._go_last", lambda: None)


def enroll(state: Path, found: str = "enrolled") -> None:
    prepare(AgentConfig(state_dir=state))
    identity.key_or_new(state)
    # Nobody listens there.
    identity.save(
        state,
        identity.Identity(server="http://127.0.0.1:9", state=found, device_id="d"),  # type: ignore[arg-type]  # a state
    )


def scanned(state: Path, output: Output, *words: str) -> tuple[int, dict[str, Any]]:
    status = main(["scan", "--json", "--state", str(state), *words])
    return status, json.loads(output.readouterr().out)


def queued(state: Path) -> list[dict[str, Any]]:
    db = database.open_in(state)
    found = outbox.waiting(db, max_events=999, max_bytes=10**9)
    db.close()
    return [json.loads(event.body) for event in found]


def test_one_file_is_not_called_files(state: Path, home: Path, capsys: Output) -> None:
    (home / "letter.txt").write_text("Dear Bob")
    main(["scan", str(home), "--state", str(state)])
    assert capsys.readouterr().out.startswith("1 file in ")


def test_a_clean_scan_ends_with_0(state: Path, home: Path, capsys: Output) -> None:
    (home / "letter.txt").write_text("Dear Bob")
    status, found = scanned(state, capsys, str(home))
    assert status == 0
    assert (found["files"], found["threats"], found["complete"]) == (1, [], True)


def test_a_found_file_ends_with_1_and_is_in_quarantine(
    state: Path, eicar_file: Path, capsys: Output
) -> None:
    status, found = scanned(state, capsys, str(eicar_file.parent))
    assert status == 1
    (threat,) = found["threats"]
    assert (threat["action"], threat["path"]) == ("quarantined", str(eicar_file))
    assert not eicar_file.exists()
    assert main(["quarantine", "list", "--json", "--state", str(state)]) == 0
    assert json.loads(capsys.readouterr().out)["files"][0]["id"] == threat["quarantine_id"]


def test_report_only_leaves_the_file(state: Path, eicar_file: Path, capsys: Output) -> None:
    status, found = scanned(state, capsys, "--no-quarantine", str(eicar_file))
    assert status == 1
    assert found["threats"][0]["action"] == "detected"
    assert eicar_file.read_bytes() == eicar()


def test_without_a_server_nothing_is_queued(state: Path, eicar_file: Path, capsys: Output) -> None:
    scanned(state, capsys, str(eicar_file))
    assert not (state / database.FILE).exists()


def test_enrolled_a_scan_tells_start_finding_and_end_even_with_the_server_away(
    state: Path, eicar_file: Path, capsys: Output
) -> None:
    enroll(state)
    status, found = scanned(state, capsys, str(eicar_file.parent))
    assert status == 1
    assert "stays in the outbox" in found["reported"]
    began, finding, ended = queued(state)
    assert [began["class_uid"], finding["class_uid"], ended["class_uid"]] == [6007, 2004, 6007]
    assert finding["unmapped"]["scan_uid"] == began["scan"]["uid"] == ended["scan"]["uid"]
    assert (ended["num_files"], ended["num_detections"], ended["num_resolutions"]) == (1, 1, 1)


def test_a_removed_device_scans_and_tells_nobody(
    state: Path, eicar_file: Path, capsys: Output
) -> None:
    enroll(state, "removed")
    status, _ = scanned(state, capsys, str(eicar_file))
    assert status == 1
    assert not eicar_file.exists()
    assert queued(state) == []


@pytest.mark.parametrize(
    ("delivers", "trouble", "told"),
    [
        (True, None, "Reported by the running agent."),
        (False, None, "Not reported yet: it waits in the outbox"),
        (False, "The server is away.", "Not reported yet: The server is away."),
    ],
)
def test_what_run_will_deliver_is_left_to_run_and_called_reported_only_when_it_is(
    state: Path,
    eicar_file: Path,
    capsys: Output,
    monkeypatch: pytest.MonkeyPatch,
    delivers: bool,
    trouble: str | None,
    told: str,
) -> None:
    enroll(state)
    clock = iter(range(1000))

    def time_passes(_: float) -> None:
        with contextlib.closing(database.open_in(state)) as db:
            if delivers:
                db.execute("DELETE FROM event")
            database.note(db, "trouble", trouble)

    monkeypatch.setattr("doorward_agent.delivery.time.monotonic", lambda: next(clock))
    monkeypatch.setattr("doorward_agent.delivery.time.sleep", time_passes)
    with lock.held(state / lock.RUN_FILE):
        _, found = scanned(state, capsys, str(eicar_file))
    assert found["reported"].startswith(told)


def test_a_restored_file_is_the_same_and_found_no_more(
    state: Path, eicar_file: Path, capsys: Output
) -> None:
    before = eicar_file.stat()
    _, found = scanned(state, capsys, str(eicar_file))
    identifier = found["threats"][0]["quarantine_id"]
    assert main(["quarantine", "restore", identifier, "--state", str(state)]) == 0
    after = eicar_file.stat()
    assert eicar_file.read_bytes() == eicar()
    assert (after.st_mode, after.st_mtime_ns) == (before.st_mode, before.st_mtime_ns)
    capsys.readouterr()
    status, found = scanned(state, capsys, str(eicar_file))
    assert (status, found["allowed"]) == (0, 1)


def test_a_decision_to_keep_a_file_is_listed_and_can_be_ended(
    state: Path, eicar_file: Path, capsys: Output
) -> None:
    _, found = scanned(state, capsys, str(eicar_file))
    place = ["--state", str(state)]
    assert main(["quarantine", "allowed", *place]) == 0
    assert "Nothing is allowed" in capsys.readouterr().out
    main(["quarantine", "restore", found["threats"][0]["quarantine_id"], *place])
    assert "quarantine forbid" in capsys.readouterr().out

    assert main(["quarantine", "allowed", "--json", *place]) == 0
    (entry,) = json.loads(capsys.readouterr().out)["files"]
    assert (entry["path"], entry["sha256"]) == (str(eicar_file), found["threats"][0]["sha256"])
    assert main(["quarantine", "allowed", *place]) == 0
    assert entry["id"] in capsys.readouterr().out

    assert main(["quarantine", "forbid", entry["id"][:6], "ffff", *place]) == 2
    told = capsys.readouterr()
    assert f"No longer allowed: {eicar_file}" in told.out
    assert "ffff: There is no such decision" in told.err
    status, again = scanned(state, capsys, str(eicar_file))
    assert (status, again["allowed"]) == (1, 0)
    assert not eicar_file.exists()


def test_a_deleted_file_is_gone_for_good(state: Path, eicar_file: Path, capsys: Output) -> None:
    _, found = scanned(state, capsys, str(eicar_file))
    identifier = found["threats"][0]["quarantine_id"]
    assert main(["quarantine", "delete", identifier, "--state", str(state)]) == 0
    assert main(["quarantine", "list", "--state", str(state)]) == 0
    assert "Quarantine is empty." in capsys.readouterr().out


@pytest.mark.parametrize("wanted", ["0000", "../../etc/passwd", "zz", "\x1b[2J"])
def test_an_unknown_id_is_told_in_words(state: Path, capsys: Output, wanted: str) -> None:
    assert main(["quarantine", "restore", wanted, "--state", str(state)]) == 2
    told = capsys.readouterr().err
    assert "no such file in quarantine" in told
    assert "\x1b" not in told


def test_nothing_is_restored_over_an_existing_file(
    state: Path, eicar_file: Path, capsys: Output
) -> None:
    _, found = scanned(state, capsys, str(eicar_file))
    eicar_file.write_text("something new")
    identifier = found["threats"][0]["quarantine_id"]
    assert main(["quarantine", "restore", identifier, "--state", str(state)]) == 2
    assert "nothing is replaced" in capsys.readouterr().err
    assert eicar_file.read_text() == "something new"


def test_a43_a_hostile_file_name_cannot_steer_the_terminal(
    state: Path, home: Path, capsys: Output
) -> None:
    (home / "\x1b[2J\x1b]0;gone\x07‮txt.exe\n").write_bytes(eicar())
    main(["scan", str(home), "--state", str(state)])
    told = capsys.readouterr().out
    for sign in ("\x1b", "\x07", "‮"):
        assert sign not in told
    assert len(told.strip().splitlines()) == 2, "a line break in a name makes no line"


def test_a_scan_of_the_agents_own_follows_the_settings(
    state: Path, eicar_file: Path, capsys: Output, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("doorward_agent.hosts.quick_paths", lambda: [eicar_file.parent])
    prepare(AgentConfig(state_dir=state))
    db = database.open_in(state)
    policy.receive(db, 1, b'{"finding":{"action":"report"}}')
    status, found = scanned(state, capsys, "--scheduled", "quick")
    assert (status, found["threats"][0]["action"]) == (1, "detected")
    rules = {"exclusions": {"one": {"path": str(eicar_file.parent)}}}
    policy.receive(db, 2, json.dumps(rules).encode())
    db.close()
    status, found = scanned(state, capsys, "--scheduled", "quick")
    assert (status, found["files"], found["skipped"]) == (0, 0, {"excluded": 1})
    assert eicar_file.exists()


class FullDisk:
    """A database on a disk that is full after so many writes."""

    def __init__(self, db: sqlite3.Connection, writes: int) -> None:
        self._db, self._left = db, writes

    def execute(self, statement: str, *values: Any) -> sqlite3.Cursor:
        if statement.split()[0] in {"INSERT", "UPDATE", "DELETE"}:
            self._left -= 1
            if self._left < 0:
                raise sqlite3.OperationalError("database or disk is full")
        return self._db.execute(statement, *values)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._db, name)


@pytest.mark.parametrize("writes", range(14))
def test_d08_with_a_full_disk_the_file_is_put_away_all_the_same(
    state: Path, eicar_file: Path, capsys: Output, monkeypatch: pytest.MonkeyPatch, writes: int
) -> None:
    enroll(state)
    opened = database.open_in
    monkeypatch.setattr(database, "open_in", lambda folder: FullDisk(opened(folder), writes))
    status = main(["scan", str(eicar_file), "--state", str(state)])
    told = capsys.readouterr()
    assert status == 1
    assert "put into quarantine" in told.out
    assert not eicar_file.exists()
    monkeypatch.undo()
    db = opened(state)
    findings_left = [kind for _, kind, _, _ in outbox.intents(db) if kind == "finding"]
    db.close()
    # Told to the server, begun and completed by the next start, or said aloud here: never silent.
    noted = [event for event in queued(state) if event["class_uid"] == 2004]
    assert len(noted) + len(findings_left) == 1 or "server" in told.err


@pytest.mark.parametrize(
    ("words", "told"),
    [
        (["scan"], "Name the files or folders"),
        (["scan", "/does/not/exist"], "/does/not/exist"),
        (["scan", "/dev/null"], "neither a file nor a folder"),
        (["unenroll"], "in no account"),
        (["unenroll", "--local"], "in no account"),
        (["enroll", "--server", "http://doorward.example", "--code", "X"], "https://"),
        (["enroll", "--server", "nonsense", "--code", "X"], "is not an address"),
        (["enroll", "--server", "https://x.example", "--code", " "], "The code is empty"),
        (
            ["enroll", "--server", "https://x.example", "--code", "X", "--ca-file", "/none"],
            "no certificates",
        ),
    ],
)
def test_a_wrong_use_is_told_in_words_and_ends_with_2(
    state: Path, capsys: Output, words: list[str], told: str
) -> None:
    assert main([*words, "--state", str(state)]) == 2
    output = capsys.readouterr()
    assert told in output.err
    assert "Traceback" not in output.err


def test_enrolling_twice_is_refused_in_words(state: Path, capsys: Output) -> None:
    enroll(state)
    words = ["enroll", "--server", "https://x.example", "--code", "X", "--state", str(state)]
    assert main(words) == 2
    assert "already enrolled" in capsys.readouterr().err


def test_leaving_while_the_server_is_away_keeps_the_seat_and_says_so(
    state: Path, capsys: Output
) -> None:
    enroll(state)
    assert main(["unenroll", "--state", str(state)]) == 2
    assert "not free yet" in capsys.readouterr().err
    assert identity.load(state) is not None


def test_forgetting_locally_leaves_no_key_and_no_events(
    state: Path, eicar_file: Path, capsys: Output
) -> None:
    enroll(state)
    scanned(state, capsys, str(eicar_file))
    assert main(["unenroll", "--local", "--state", str(state)]) == 0
    assert identity.load(state) is None
    assert not (state / identity.KEY_FILE).exists()
    assert queued(state) == []
    main(["quarantine", "list", "--json", "--state", str(state)])
    assert '"path"' in capsys.readouterr().out, "quarantine stays"


@pytest.mark.parametrize(
    ("found", "told"), [("pending", "had not joined"), ("removed", "was removed from the account")]
)
def test_leaving_says_what_is_left(state: Path, capsys: Output, found: str, told: str) -> None:
    enroll(state, found)
    assert main(["unenroll", "--state", str(state)]) == 0
    assert told in capsys.readouterr().out
    assert identity.load(state) is None


def test_a_server_that_drips_does_not_hold_enrolling_for_ever(
    state: Path, capsys: Output, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A server that sends a byte now and then keeps each single read going."""

    async def drips(*_: object) -> None:
        await asyncio.sleep(3600)

    monkeypatch.setattr("doorward_agent.link.Link.enroll", drips)
    monkeypatch.setattr("doorward_agent.commands.enroll._WITHIN", 0.01)
    words = ["enroll", "--server", "https://x.example", "--code", "X", "--state", str(state)]
    assert main(words) == 2
    assert "did not answer in time. Nothing is lost" in capsys.readouterr().err


def test_a_pause_that_the_server_asks_for_does_not_outlast_enrolling(
    state: Path, capsys: Output, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def is_busy(*_: object) -> None:
        raise link.ServerBusy("The server is busy.", retry_after=900)

    monkeypatch.setattr("doorward_agent.link.Link.enroll", is_busy)
    monkeypatch.setattr("doorward_agent.commands.enroll._WITHIN", 0.01)
    words = ["enroll", "--server", "https://x.example", "--code", "X", "--state", str(state)]
    assert main(words) == 2
    assert "The server is busy. Nothing is lost" in capsys.readouterr().err


def test_two_agents_on_one_folder_are_refused(state: Path, capsys: Output) -> None:
    prepare(AgentConfig(state_dir=state))
    with lock.held(state / lock.RUN_FILE):
        assert main(["run", "--state", str(state)]) == 2
    assert "already running" in capsys.readouterr().err


def test_status_without_anything_says_what_is_missing(state: Path, capsys: Output) -> None:
    assert main(["status", "--state", str(state)]) == 0
    told = capsys.readouterr().out
    assert "not enrolled" in told
    assert "Needs attention (its agent is not running, not scanned yet)" in told
    # The very command: the folder is named, as it was here.
    assert f"run --state {state}" in told


def test_protected_is_said_while_the_agent_runs_and_beside_it_that_nothing_was_scanned(
    state: Path, home: Path, capsys: Output
) -> None:
    enroll(state)

    def reasons() -> tuple[str, list[str]]:
        capsys.readouterr()
        main(["status", "--json", "--state", str(state)])
        found = json.loads(capsys.readouterr().out)["protection"]
        return found["state"], found["reasons"]

    assert reasons() == ("attention", ["not-running"])
    with lock.held(state / lock.RUN_FILE):
        # As it tells the server, and as the pages say it.
        assert reasons() == ("protected", [])
        main(["status", "--state", str(state)])
        assert "Protection    Protected (not scanned yet)\n" in capsys.readouterr().out
        with contextlib.closing(database.open_in(state)) as db:
            database.note(db, "trouble", "away")
        scanned(state, capsys, str(home))
        assert reasons() == ("protected", [])
        main(["status", "--state", str(state)])
        assert "Protection    Protected\n" in capsys.readouterr().out
    assert reasons() == ("attention", ["not-running"])


def test_every_reason_that_is_told_the_server_has_its_words(
    state: Path, home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    state.mkdir()
    given = set()
    for watching in ("off", "partly"):
        with contextlib.closing(database.open_in(state)) as db:
            for kind in schedule.KINDS:
                database.note(db, f"status.{kind}", 2)
            database.note(db, protection.REAL_TIME, f'{{"state":"{watching}"}}'.encode())
            given |= set(protection.state(AgentConfig(state_dir=state), db).reasons)
    monkeypatch.setattr(protection, "definitions_version", lambda _config: 0)
    with contextlib.closing(database.open_in(state)) as db:
        given |= set(protection.state(AgentConfig(state_dir=state), db).reasons)
    assert given == set(words.REASONS)


@pytest.mark.parametrize(
    ("launcher", "told"),
    [("./doorward agent", "./doorward agent run --state "), ("", "-m doorward_agent run --state ")],
)
def test_what_to_type_next_begins_as_the_person_began(
    state: Path, capsys: Output, monkeypatch: pytest.MonkeyPatch, launcher: str, told: str
) -> None:
    monkeypatch.setenv("DOORWARD_STARTED_AS", launcher)
    monkeypatch.setattr("sys.argv", ["/somewhere/__main__.py", "status"])
    main(["status", "--state", str(state)])
    assert f"{told}{state}" in capsys.readouterr().out


def test_status_as_json_names_everything(state: Path, capsys: Output) -> None:
    enroll(state, "removed")
    assert main(["status", "--json", "--state", str(state)]) == 0
    found = json.loads(capsys.readouterr().out)
    assert found["enrollment"]["state"] == "removed"
    assert found["protection"] == {
        "state": "attention",
        "reasons": ["not-running"],
    }
    assert found["outbox"] == {"waiting": 0, "bytes": 0, "refused": 0, "dropped": 0}


def test_the_last_payload_without_any_says_so(state: Path, capsys: Output) -> None:
    assert main(["status", "--last-payload", "--state", str(state)]) == 0
    assert "Nothing was sent" in capsys.readouterr().err


def test_a_damaged_identity_is_told_in_words(state: Path, home: Path, capsys: Output) -> None:
    enroll(state)
    (state / identity.IDENTITY_FILE).write_text("{")
    assert main(["scan", str(home), "--state", str(state)]) == 2
    assert "unenroll --local" in capsys.readouterr().err


@pytest.mark.parametrize(
    "words",
    [[], ["enroll"], ["run"], ["scan"], ["status"], ["quarantine"], ["unenroll"]]
    + [["quarantine", action] for action in ("list", "restore", "delete", "allowed", "forbid")],
)
def test_every_command_explains_itself(capsys: Output, words: list[str]) -> None:
    with pytest.raises(SystemExit) as ended:
        main([*words, "--help"])
    assert ended.value.code == 0
    assert capsys.readouterr().out.startswith("usage:")


def test_an_unknown_command_ends_with_2(capsys: Output) -> None:
    with pytest.raises(SystemExit) as ended:
        main(["dance"])
    assert ended.value.code == 2


def test_a_scan_that_is_stopped_ends_in_good_order(state: Path, home: Path) -> None:
    for number in range(3000):
        (home / f"{number}").write_bytes(os.urandom(20_000))
    scanning = subprocess.Popen(  # noqa: S603 - our own interpreter
        [sys.executable, "-m", "doorward_agent", "scan", str(home), "--state", str(state)],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    try:
        # As soon as its workers look at files it is stopped.
        while scanning.poll() is None and not _has_children(scanning.pid):
            pass
        scanning.send_signal(signal.SIGINT)
        told, _ = scanning.communicate(timeout=30)
    finally:
        scanning.kill()
    assert scanning.returncode == 2
    assert "Stopped before the end." in told


def _has_children(process: int) -> bool:
    try:
        return bool(Path(f"/proc/{process}/task/{process}/children").read_text())
    except OSError:
        return True


def test_a_scan_loads_no_http_client_and_no_display() -> None:
    """What takes a tenth of a second to load must not be loaded where it is not needed."""
    code = (
        "import sys, os, tempfile\nfrom doorward_agent.__main__ import main\n"
        "folder = tempfile.mkdtemp()\n"
        "main(['scan', folder, '--state', folder + '/state'])\n"
        "heavy = {'httpx2', 'rich', 'cryptography', 'msgspec', 'sqlite3', 'asyncio', 'yara_x'}\n"
        "print(sorted(heavy & set(sys.modules)))"
    )
    words = [sys.executable, "-c", code]
    done = subprocess.run(words, capture_output=True, text=True, check=True)  # noqa: S603 - our own
    assert done.stdout.splitlines()[-1] == "[]"
