"""Settings on the device: sound ones apply, others change nothing, and each one is honored."""

from __future__ import annotations

import dataclasses
import hashlib
import io
import os
import sqlite3
import zipfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import msgspec
import pytest

from doorward_agent import database, policy, scan
from doorward_agent.config import MEBIBYTE, AgentConfig, prepare
from doorward_agent.definitions.build import eicar
from doorward_agent.policy import DEFAULT
from doorward_protocol.settings import DAYS, Settings


@pytest.fixture
def db(config: AgentConfig) -> Iterator[sqlite3.Connection]:
    prepare(config)
    found = database.open_in(config.state_dir)
    yield found
    found.close()


def told(**sections: Any) -> bytes:
    return msgspec.json.encode(sections)


def wanted(**sections: Any) -> Settings:
    return msgspec.convert(sections, Settings)


def test_without_settings_the_built_in_ones_protect(db: sqlite3.Connection) -> None:
    assert policy.current(db) == (0, DEFAULT)
    assert [plan.kind for plan in policy.plans(DEFAULT)] == ["quick", "full"]


def test_settings_outlive_a_restart(config: AgentConfig, db: sqlite3.Connection) -> None:
    policy.receive(db, 7, told(quick_scan={"start": "03:00"}))
    db.close()
    again = database.open_in(config.state_dir)
    version, found = policy.current(again)
    again.close()
    assert (version, found.quick_scan.start) == (7, "03:00")


@pytest.mark.parametrize(
    ("body", "pointer"),
    [
        (told(quick_scan={"start": "25:00"}), "/quick_scan/start"),
        (told(quick_scan={"days": ["funday"]}), "/quick_scan/days/0"),
        (told(real_time={"mode": "sometimes"}), "/real_time/mode"),
        (told(scanning={"largest_file": 0}), "/scanning/largest_file"),
        (told(exclusions={"a": {"path": "/x"}, "b/c": {"sha256": "0"}}), "/exclusions/b~1c/sha256"),
        (told(custom_scan=[]), "/custom_scan"),
        (b"[]", ""),
        (b"{", ""),
        (b'{"quick_scan":{"start":"\\u00001:00"}}', ""),
    ],
)
def test_what_is_not_sound_is_named_and_the_last_good_ones_stay(
    db: sqlite3.Connection, body: bytes, pointer: str
) -> None:
    policy.receive(db, 1, told(quick_scan={"start": "03:00"}))
    assert policy.receive(db, 2, body).quick_scan.start == "03:00"
    assert policy.current(db)[0] == 1
    assert policy.refused(db) == policy.Refused(2, pointer)
    policy.receive(db, 3, told())
    assert policy.refused(db) is None


def test_an_exclusion_that_leads_to_the_root_is_refused_here(
    db: sqlite3.Connection, tmp_path: Path
) -> None:
    (tmp_path / "everything").symlink_to("/")
    policy.receive(db, 2, told(exclusions={"x": {"path": str(tmp_path / "everything")}}))
    assert policy.refused(db) == policy.Refused(2, "/exclusions/x/path", "too-broad")
    assert policy.current(db) == (0, DEFAULT)


def test_what_a_newer_server_adds_is_skipped(db: sqlite3.Connection) -> None:
    found = policy.receive(db, 1, told(quick_scan={"start": "03:00", "new": 1}, more={"a": 1}))
    assert found.quick_scan.start == "03:00"


def test_another_accounts_settings_do_not_hold_after_joining_anew(db: sqlite3.Connection) -> None:
    policy.receive(db, 9, told(quick_scan={"enabled": False}))
    policy.receive(db, 10, b"[]")
    policy.forget(db)
    assert policy.current(db) == (0, DEFAULT)
    assert policy.refused(db) is None


def test_every_part_of_a_schedule_reaches_the_scheduler() -> None:
    plans = policy.plans(
        wanted(
            quick_scan={"enabled": False},
            full_scan={
                "days": ["sunday"],
                "start": "23:15",
                "window": 90,
                "on_battery": "skip",
                "catch_up": False,
            },
            custom_scan={"enabled": True, "folders": ["/srv", "C:\\Share"]},
        )
    )
    full, custom = plans
    assert dataclasses.asdict(full) == {
        "kind": "full",
        "hour": 23,
        "minute": 15,
        "days": frozenset({6}),
        "spread": 90,
        "on_battery": "skip",
        "catch_up": False,
    }
    assert (custom.kind, len(custom.days)) == ("custom", len(DAYS))


def test_a_scan_of_folders_of_another_system_is_not_planned() -> None:
    there = {"enabled": True, "folders": ["D:\\Share"]}
    assert "custom" not in {plan.kind for plan in policy.plans(wanted(custom_scan=there))}


def test_limits_are_those_of_the_settings(config: AgentConfig) -> None:
    found = policy.limits(
        config,
        wanted(
            scanning={
                "archives": False,
                "largest_file": 5,
                "network_folders": True,
                "second_engine": False,
                "processor_share": 1,
            },
            exclusions={
                "path": {"path": "/srv/build"},
                "ended": {"path": "/srv/old", "until": 1_000},
                "lasting": {"path": "/srv/now", "until": 3_000},
                "back": {"path": "/srv/back", "active": False},
                "elsewhere": {"path": "C:\\Build"},
                "file": {"path": "/srv/tool", "sha256": "0" * 64},
            },
        ),
        now=2.0,
    )
    assert (found.open_archives, found.max_file_bytes) == (False, 5 * MEBIBYTE)
    assert (found.scan_network_mounts, found.clamd, found.workers) == (True, False, 1)
    assert set(found.excluded) - set(config.excluded) == {"/srv/build", "/srv/now"}
    assert found.excluded_files == (("0" * 64, "/srv/tool"),)


def found_in(folder: Path, config: AgentConfig) -> tuple[list[str], scan.ScanSummary]:
    with scan.run([folder], config) as run:
        return [Path(detection.path).name for detection in run], run.summary


def test_a_hash_pinned_exclusion_is_for_that_content_in_that_place_alone(
    config: AgentConfig, tmp_path: Path
) -> None:
    folder = tmp_path / "files"
    folder.mkdir()
    for name in ("tool.com", "copy.com"):
        (folder / name).write_bytes(eicar())
    digest = hashlib.sha256(eicar()).hexdigest()
    entry = {"path": str(folder / "tool.com"), "sha256": digest}
    limited = policy.limits(config, wanted(exclusions={"x": entry}))
    assert found_in(folder, limited)[0] == ["copy.com"]
    everywhere = policy.limits(config, wanted(exclusions={"x": {"sha256": digest}}))
    assert found_in(folder, everywhere)[0] == []
    (folder / "tool.com").write_bytes(eicar() + b"\n")
    assert sorted(found_in(folder, limited)[0]) == ["copy.com", "tool.com"]


def test_an_archive_that_is_left_out_is_never_called_clean(
    config: AgentConfig, tmp_path: Path
) -> None:
    folder = tmp_path / "files"
    folder.mkdir()
    packed = io.BytesIO()
    with zipfile.ZipFile(packed, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("inside.com", eicar())
    (folder / "archive.zip").write_bytes(packed.getvalue())
    os.utime(folder / "archive.zip", (1, 1))
    limited = policy.limits(config, wanted(scanning={"archives": False}))
    for _ in range(2):
        names, summary = found_in(folder, limited)
        assert (names, summary.limited) == ([], {"archive-left-out": 1})
    assert found_in(folder, policy.limits(config, DEFAULT))[0] == ["archive.zip"]


@pytest.mark.parametrize(("kind", "switch"), policy.REMOTE.items())
def test_what_members_may_not_do_from_afar_is_not_offered(kind: str, switch: str) -> None:
    assert policy.may(DEFAULT, kind)
    assert not policy.may(wanted(on_device={switch: False}), kind)
