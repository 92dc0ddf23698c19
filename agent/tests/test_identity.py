"""Who this device is: one key for ever, told to nobody, whole on disk at every moment."""

from __future__ import annotations

import json
import stat
import threading
from pathlib import Path

import pytest

from doorward_agent import identity

ALICE = identity.Identity(server="https://doorward.example", state="enrolled", device_id="d1")


def test_the_key_is_made_once(tmp_path: Path) -> None:
    first = identity.key_or_new(tmp_path).private_bytes_raw()
    assert identity.key_or_new(tmp_path).private_bytes_raw() == first
    assert identity.key(tmp_path).private_bytes_raw() == first


def test_two_processes_that_enroll_at_once_use_the_same_key(tmp_path: Path) -> None:
    made: list[bytes] = []
    start = threading.Barrier(8)

    def enroll() -> None:
        start.wait()
        made.append(identity.key_or_new(tmp_path).private_bytes_raw())

    threads = [threading.Thread(target=enroll) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(set(made)) == 1
    assert [path.name for path in tmp_path.iterdir()] == [identity.KEY_FILE]


def test_only_the_owner_can_read_key_and_identity(tmp_path: Path) -> None:
    identity.key_or_new(tmp_path)
    identity.save(tmp_path, ALICE)
    for path in tmp_path.iterdir():
        assert stat.S_IMODE(path.stat().st_mode) == 0o600, path.name


def test_a_key_that_others_could_read_is_not_used(tmp_path: Path) -> None:
    identity.key_or_new(tmp_path)
    (tmp_path / identity.KEY_FILE).chmod(0o644)
    with pytest.raises(identity.IdentityProblem, match="could be read by other users"):
        identity.key(tmp_path)


@pytest.mark.parametrize("body", [b"", b"garbage", b"-----BEGIN PRIVATE KEY-----\n"])
def test_a_damaged_key_is_told_in_words(tmp_path: Path, body: bytes) -> None:
    (tmp_path / identity.KEY_FILE).write_bytes(body)
    (tmp_path / identity.KEY_FILE).chmod(0o600)
    with pytest.raises(identity.IdentityProblem, match="damaged"):
        identity.key(tmp_path)


def test_a_missing_key_is_told_in_words(tmp_path: Path) -> None:
    with pytest.raises(identity.IdentityProblem, match="unenroll --local"):
        identity.key(tmp_path)


def test_what_was_saved_comes_back(tmp_path: Path) -> None:
    identity.save(tmp_path, ALICE)
    assert identity.load(tmp_path) == ALICE


def test_a_newer_agents_identity_can_be_read(tmp_path: Path) -> None:
    identity.save(tmp_path, ALICE)
    path = tmp_path / identity.IDENTITY_FILE
    path.write_text(json.dumps({**json.loads(path.read_text()), "later": 1}))
    assert identity.load(tmp_path) == ALICE


@pytest.mark.parametrize("body", ["", "[]", "{}", '{"server": 1, "state": "enrolled"}', '"x"'])
def test_a_damaged_identity_is_told_in_words(tmp_path: Path, body: str) -> None:
    (tmp_path / identity.IDENTITY_FILE).write_text(body)
    with pytest.raises(identity.IdentityProblem, match="cannot be read"):
        identity.load(tmp_path)


def test_a_crash_while_saving_leaves_the_old_identity(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    identity.save(tmp_path, ALICE)

    def crash(self: Path, target: Path) -> Path:
        raise KeyboardInterrupt

    monkeypatch.setattr(Path, "replace", crash)
    with pytest.raises(KeyboardInterrupt):
        identity.save(tmp_path, identity.Identity(server="https://other", state="enrolled"))
    assert identity.load(tmp_path) == ALICE


def test_forgetting_leaves_neither_key_nor_identity(tmp_path: Path) -> None:
    identity.key_or_new(tmp_path)
    identity.save(tmp_path, ALICE)
    identity.forget(tmp_path)
    assert identity.load(tmp_path) is None
    assert list(tmp_path.iterdir()) == []
