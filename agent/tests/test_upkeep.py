"""When new definitions are asked for, and what is told of them."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator

import pytest

from doorward_agent import database, upkeep
from doorward_agent.config import AgentConfig, prepare
from doorward_agent.database import note
from doorward_agent.upkeep import HOUR
from doorward_protocol.messages import DefinitionsRoot

ROOT = DefinitionsRoot(version=1, sha256="a" * 64)
SET = 2099112201
NOW = 1_800_000_000_000


@pytest.fixture
def db(config: AgentConfig) -> Iterator[sqlite3.Connection]:
    prepare(config)
    found = database.open_in(config.state_dir)
    yield found
    found.close()


def due(config: AgentConfig, db: sqlite3.Connection, now: int, hours: int = 4) -> bool:
    return upkeep.is_due(config, db, "device", hours=hours, now=now)


def checked(db: sqlite3.Connection, at: int, code: str = "", refused: int = 0) -> None:
    note(db, "definitions_checked", at)
    note(db, "definitions_code", code)
    note(db, "definitions_refused", refused)


def test_nothing_is_asked_for_before_it_is_known_whom_to_believe(
    config: AgentConfig, db: sqlite3.Connection
) -> None:
    upkeep.hear(db, SET, None)
    assert not due(config, db, NOW)
    upkeep.hear(db, SET, ROOT)
    assert due(config, db, NOW)


def test_new_ones_are_asked_for_as_often_as_the_settings_say(
    config: AgentConfig, db: sqlite3.Connection
) -> None:
    upkeep.hear(db, 0, ROOT)
    checked(db, NOW)
    assert not due(config, db, NOW + 4 * HOUR - 1)
    assert due(config, db, NOW + 4 * HOUR)
    assert not due(config, db, NOW + 100 * HOUR, hours=168)
    assert due(config, db, NOW - HOUR), "noted under a wrong clock"


def test_a_set_that_the_server_names_is_fetched_within_a_quarter_of_an_hour(
    config: AgentConfig, db: sqlite3.Connection
) -> None:
    upkeep.hear(db, 0, ROOT)
    checked(db, NOW)
    upkeep.hear(db, SET, ROOT)
    assert not due(config, db, NOW), "not all devices at the same moment"
    assert due(config, db, NOW + upkeep.SPREAD)


def test_after_a_trouble_on_the_way_it_is_tried_again_soon(
    config: AgentConfig, db: sqlite3.Connection
) -> None:
    upkeep.hear(db, SET, ROOT)
    checked(db, NOW, "unreachable")
    assert not due(config, db, NOW + HOUR // 4)
    assert due(config, db, NOW + HOUR)


def test_a_set_that_was_refused_is_not_fetched_again_and_again(
    config: AgentConfig, db: sqlite3.Connection
) -> None:
    upkeep.hear(db, SET, ROOT)
    checked(db, NOW, "hits-clean", SET)
    assert not due(config, db, NOW + 23 * HOUR)
    assert due(config, db, NOW + 24 * HOUR)
    upkeep.hear(db, SET + 1, ROOT)
    assert due(config, db, NOW + 2 * HOUR), "its successor may be good"


def test_the_state_tells_why(config: AgentConfig, db: sqlite3.Connection) -> None:
    assert upkeep.told(config, db).code == ""
    checked(db, NOW, "hits-clean", SET)
    said = upkeep.told(config, db)
    assert (said.code, said.refused_version) == ("hits-clean", SET)
    assert said.version > 0


def test_an_update_that_ended_without_a_word_is_told_as_a_crash(
    config: AgentConfig, db: sqlite3.Connection
) -> None:
    upkeep.hear(db, SET, ROOT)
    assert upkeep.ended(db, -9, now=NOW) == "crash"
    said = upkeep.told(config, db)
    assert (said.code, said.refused_version) == ("crash", SET)
    note(db, "definitions_code", "expired")
    assert upkeep.ended(db, 2, now=NOW) == "expired"


def test_enrolling_anew_believes_the_new_server_and_no_other(
    config: AgentConfig, db: sqlite3.Connection
) -> None:
    upkeep.hear(db, SET, ROOT)
    checked(db, NOW, "wrong-key")
    metadata = config.state_dir / "definitions" / "metadata"
    metadata.mkdir(parents=True)
    upkeep.begin_anew(config, db, DefinitionsRoot(version=2, sha256="b" * 64))
    assert not metadata.exists()
    assert upkeep.told(config, db).code == ""
    root = database.noted(db, "definitions_root")
    assert isinstance(root, bytes)
    assert b"bbbb" in root
