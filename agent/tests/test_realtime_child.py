"""The process that watches: kept running by the agent, told of new settings, never in its way."""

from __future__ import annotations

import asyncio
import contextlib
import dataclasses
import json
import os
import signal
import sqlite3
from collections.abc import AsyncIterator, Callable, Iterator
from pathlib import Path

import psutil
import pytest

from doorward_agent import database, identity, loop, outbox, policy, protection
from doorward_agent.commands import status
from doorward_agent.config import AgentConfig, prepare
from doorward_agent.definitions.build import eicar
from doorward_agent.realtime import fanotify
from doorward_agent.realtime.child import Child
from doorward_protocol import messages
from doorward_protocol.settings import Settings


@pytest.fixture
def settings(config: AgentConfig) -> AgentConfig:
    prepare(config)
    return dataclasses.replace(config, watch_pause=0.5, watch_settle=10.0)


@pytest.fixture
def db(settings: AgentConfig) -> Iterator[sqlite3.Connection]:
    found = database.open_in(settings.state_dir)
    yield found
    found.close()


def told(home: Path, version: int = 1, **real_time: object) -> tuple[int, bytes]:
    wanted = {"usual_places": False, "folders": [os.fspath(home)], **real_time}
    return version, json.dumps({"real_time": wanted}).encode()


async def until(true: Callable[[], bool]) -> None:
    """Wait for another process, which takes a moment; never longer than twenty seconds."""
    async with asyncio.timeout(20):
        while not true():  # noqa: ASYNC110 - what is waited for is another process's doing
            await asyncio.sleep(0.01)


@contextlib.asynccontextmanager
async def watching(child: Child) -> AsyncIterator[None]:
    task = asyncio.create_task(child.keep_for_ever())
    try:
        yield
    finally:
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)
        for process in child._children:
            with contextlib.suppress(ProcessLookupError):
                process.kill()
            await process.wait()


def made(settings: AgentConfig, db: sqlite3.Connection) -> Child:
    return Child(settings, db, children=set())


def test_what_is_written_while_it_was_gone_is_found_when_it_is_back(
    settings: AgentConfig, db: sqlite3.Connection, home: Path
) -> None:
    policy.receive(db, *told(home))
    child = made(settings, db)

    async def go() -> None:
        async with watching(child):
            await until(lambda: child.status.state == "on")
            first = child._process
            assert first is not None
            os.kill(first.pid, signal.SIGKILL)
            (home / "meanwhile.com").write_bytes(eicar())
            await until(lambda: child.status.state == "off")
            found = protection.state(settings, db)
            assert (found.state, found.reasons) == ("attention", ("real-time-off",))
            await until(lambda: child.status.state == "on")
            assert child._process is not None
            assert child._process.pid != first.pid
            await until(lambda: not (home / "meanwhile.com").exists())
            assert protection.state(settings, db).state == "protected"

    asyncio.run(go())


def test_new_settings_are_in_force_when_the_call_returns(
    settings: AgentConfig, db: sqlite3.Connection, home: Path, tmp_path: Path
) -> None:
    other = tmp_path / "other"
    other.mkdir()
    policy.receive(db, *told(home))
    child = made(settings, db)

    async def go() -> None:
        async with watching(child):
            await until(lambda: child.status.state == "on")
            process = child._process
            policy.receive(db, *told(other, 2, mode="notify"))
            await child.settings_changed()
            assert (child.status.settings, child.status.state) == (2, "on")
            assert child._process is process, "the same process goes on"
            (home / "x.com").write_bytes(eicar())
            (other / "x.com").write_bytes(eicar())
            await until(lambda: child.status.found == 1)
            assert (home / "x.com").exists()
            assert (other / "x.com").exists()

            policy.receive(db, *told(home, 3, mode="off"))
            await child.settings_changed()
            assert child.status.words == "off: the settings say so"
            await until(lambda: child._process is None)
            assert protection.state(settings, db).state == "protected", "as it was wanted"

            policy.receive(db, *told(home, 4))
            await child.settings_changed()
            assert (child.status.settings, child.status.state) == (4, "on")

    asyncio.run(go())


def test_it_ends_with_the_agent_however_that_ends(
    settings: AgentConfig, db: sqlite3.Connection, home: Path
) -> None:
    policy.receive(db, *told(home))
    child = made(settings, db)

    async def go() -> int:
        async with watching(child):
            await until(lambda: child.status.state == "on")
            process = child._process
            assert process is not None
            assert process.stdin is not None
            # What it sees when `run` is killed: the end of its standard input.
            process.stdin.close()
            return await asyncio.wait_for(process.wait(), 20)

    assert asyncio.run(go()) == 0


def test_a_finding_in_real_time_is_told_to_the_server_and_belongs_to_no_scan(
    settings: AgentConfig, db: sqlite3.Connection, home: Path
) -> None:
    identity.save(
        settings.state_dir,
        identity.Identity(server="https://d.example", state="enrolled", device_id="1", wait=0),
    )
    policy.receive(db, *told(home))
    child = made(settings, db)

    async def go() -> None:
        async with watching(child):
            await until(lambda: child.status.state == "on")
            (home / "x.com").write_bytes(eicar())
            await until(lambda: outbox.depth(db).waiting == 1)

    asyncio.run(go())
    (event,) = outbox.waiting(db, max_events=9, max_bytes=10**6)
    found, bad = messages.decode_report(b'{"events":[' + event.body + b"]}")
    assert not bad
    (finding,) = found
    assert isinstance(finding, messages.DetectionFinding)
    assert finding.disposition_id == messages.DISPOSITION_QUARANTINED
    assert finding.unmapped.scan_uid is None
    assert finding.unmapped.quarantine_id is not None
    assert finding.message.startswith("Found by real-time protection")
    assert not outbox.intents(db)


def test_the_agent_says_what_its_watching_can_do(
    settings: AgentConfig, db: sqlite3.Connection, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(flags: int) -> int:
        raise fanotify.Unavailable("it needs root (CAP_SYS_ADMIN)")

    with_root = loop.watch_abilities() if os.geteuid() == 0 else ("watch", "block")
    assert with_root == ("watch", "block")
    monkeypatch.setattr(fanotify, "begin", refuse)
    assert loop.watch_abilities() == ("watch",)
    facts = loop.device_facts("1.0", Settings(), more=loop.watch_abilities())
    assert facts.capabilities is not None
    assert "watch" in facts.capabilities
    silent = loop.device_facts("1.0", Settings())
    assert silent.capabilities is not None
    assert "watch" not in silent.capabilities


def test_status_says_how_files_are_watched(
    settings: AgentConfig, db: sqlite3.Connection, home: Path
) -> None:
    found = status.gather(settings, db, start="run")
    assert found["real_time"]["words"].startswith("off: the agent is not running")
    policy.receive(db, *told(home))
    child = made(settings, db)

    async def go() -> None:
        async with watching(child):
            await until(lambda: child.status.state == "on")

    asyncio.run(go())
    assert status._real_time(db, running=True)["words"] == child.status.words
    assert "in 1 folder" in child.status.words


def test_holding_back_what_the_system_itself_opens_is_refused(db: sqlite3.Connection) -> None:
    policy.receive(db, 3, b'{"real_time":{"block":["/srv","/usr/../usr"]}}')
    refused = policy.refused(db)
    assert refused is not None
    assert (refused.version, refused.pointer, refused.code) == (
        3,
        "/real_time/block/1",
        "too-broad",
    )


def test_nothing_is_left_running(settings: AgentConfig) -> None:
    left = [
        process.pid
        for process in psutil.Process().children(recursive=True)
        if "doorward_agent" in " ".join(process.cmdline())
    ]
    assert left == []
