import dataclasses
import errno
import os
import stat
from pathlib import Path

import pytest
import time_machine

from doorward_agent import allowed, folders, packages, quarantine, scan, vault
from doorward_agent.config import AgentConfig
from doorward_agent.definitions.build import eicar

Detection = scan.Detection


def _journal(config: AgentConfig) -> list[Path]:
    return list((config.quarantine_dir / "journal").iterdir())


def _held(config: AgentConfig) -> list[Path]:
    return list((config.quarantine_dir / "held").iterdir())


def test_a_file_put_away_is_gone_from_its_place_and_unreadable_in_the_vault(
    detection: Detection, eicar_file: Path, config: AgentConfig
) -> None:
    record = quarantine.put_away(detection, config)

    assert not eicar_file.exists()
    assert list(eicar_file.parent.iterdir()) == []
    sealed = (config.quarantine_dir / "vault" / f"{record.id}.dwq").read_bytes()
    assert b"EICAR" not in sealed
    assert b"invoice" not in sealed
    assert quarantine.list_records(config) == [record]
    assert _journal(config) == []
    assert _held(config) == []


def test_restore_brings_back_bytes_mode_times_and_owner(
    detection: Detection, eicar_file: Path, config: AgentConfig
) -> None:
    before = eicar_file.stat()
    record = quarantine.put_away(detection, config)

    quarantine.restore(config, record.id)

    after = eicar_file.stat()
    assert eicar_file.read_bytes() == eicar()
    assert after.st_mode == before.st_mode
    assert after.st_mtime_ns == before.st_mtime_ns
    assert (after.st_uid, after.st_gid) == (before.st_uid, before.st_gid)
    assert quarantine.list_records(config) == []
    assert list(eicar_file.parent.iterdir()) == [eicar_file]


def test_a_restored_file_is_not_caught_again_but_a_changed_one_is(
    detection: Detection, eicar_file: Path, config: AgentConfig
) -> None:
    record = quarantine.put_away(detection, config)
    quarantine.restore(config, record.id)

    again = scan.run([eicar_file], config)
    assert list(again) == []
    assert again.summary.allowed == 1

    eicar_file.write_bytes(eicar() + b"  \n")
    assert [found.rule for found in scan.run([eicar_file], config)] == ["DW-TEST-0001"]


def test_what_may_stay_may_stay_in_its_place_only(
    detection: Detection, eicar_file: Path, config: AgentConfig
) -> None:
    record = quarantine.put_away(detection, config)
    quarantine.restore(config, record.id)

    copy = eicar_file.with_name("sent-by-somebody.com")
    copy.write_bytes(eicar())

    assert [found.location for found in scan.run([eicar_file.parent], config)] == [
        os.fsencode(copy)
    ]


def test_n14_a_decision_with_an_end_holds_until_then(
    detection: Detection, eicar_file: Path, config: AgentConfig
) -> None:
    record = quarantine.put_away(detection, config)
    with time_machine.travel(1_800_000_000, tick=False) as clock:
        quarantine.restore(config, record.id, until=1_800_000_060)
        assert list(scan.run([eicar_file], config)) == []
        clock.move_to(1_800_000_059)
        assert allowed.holds(config, record.sha256, os.fsencode(eicar_file))
        clock.move_to(1_800_000_060)
        assert [found.rule for found in scan.run([eicar_file], config)] == ["DW-TEST-0001"]
    assert [each.until for each in allowed.read(config).values()] == [1_800_000_060]


def test_of_too_many_decisions_the_oldest_goes(config: AgentConfig) -> None:
    few = dataclasses.replace(config, allowed_most=2)
    for number in (3, 1, 2):
        allowed.add(few, "a" * 64, location=b"/%d" % number, path=f"/{number}", now=number)
    assert [each.path for each in allowed.read(config).values()] == ["/2", "/3"]


def test_a_damaged_list_allows_nothing(
    detection: Detection, eicar_file: Path, config: AgentConfig
) -> None:
    quarantine.restore(config, quarantine.put_away(detection, config).id)
    config.allowed_file.write_text('[{"sha256": "a"}]')
    assert len(list(scan.run([eicar_file], config))) == 1


def test_delete_leaves_nothing(detection: Detection, config: AgentConfig) -> None:
    record = quarantine.put_away(detection, config)

    quarantine.delete(config, record.id)

    assert quarantine.list_records(config) == []
    assert list((config.quarantine_dir / "vault").iterdir()) == []
    with pytest.raises(quarantine.NotInQuarantine):
        quarantine.restore(config, record.id)


def test_a48_a_hard_linked_file_is_refused_and_stays(
    detection: Detection, eicar_file: Path, config: AgentConfig
) -> None:
    other = eicar_file.parent / "other-name"
    os.link(eicar_file, other)

    with pytest.raises(quarantine.Refused) as refused:
        quarantine.put_away(detection, config)

    assert refused.value.reason == "hard-linked"
    # Refused before it was touched, not after it was moved.
    assert "2 names" in str(refused.value)
    assert eicar_file.read_bytes() == other.read_bytes() == eicar()
    assert _journal(config) == []


def test_a48_a_folder_swapped_for_a_link_is_refused(
    detection: Detection, eicar_file: Path, config: AgentConfig, tmp_path: Path
) -> None:
    # Charlie replaces the folder by a link to one that holds a file of the same name.
    target = tmp_path / "precious"
    target.mkdir()
    (target / eicar_file.name).write_bytes(b"do not touch")
    eicar_file.parent.rename(tmp_path / "aside")
    eicar_file.parent.symlink_to(target)

    with pytest.raises(quarantine.Refused) as refused:
        quarantine.put_away(detection, config)

    assert refused.value.reason == "link-in-path"
    assert (target / eicar_file.name).read_bytes() == b"do not touch"


def test_a48_a_file_swapped_for_a_link_is_refused(
    detection: Detection, eicar_file: Path, config: AgentConfig, tmp_path: Path
) -> None:
    precious = tmp_path / "precious"
    precious.write_bytes(b"do not touch")
    eicar_file.unlink()
    eicar_file.symlink_to(precious)

    with pytest.raises(quarantine.Refused) as refused:
        quarantine.put_away(detection, config)

    assert refused.value.reason == "link-in-path"
    assert precious.read_bytes() == b"do not touch"
    assert eicar_file.is_symlink()


def test_a48_another_file_under_the_same_name_is_refused(
    detection: Detection, eicar_file: Path, config: AgentConfig
) -> None:
    replacement = eicar_file.parent / "new"
    replacement.write_bytes(b"a letter to Bob")
    replacement.rename(eicar_file)

    with pytest.raises(quarantine.Refused) as refused:
        quarantine.put_away(detection, config)

    assert refused.value.reason == "changed"
    assert eicar_file.read_bytes() == b"a letter to Bob"


def test_a48_a_file_swapped_at_the_last_moment_is_put_back(
    detection: Detection,
    eicar_file: Path,
    config: AgentConfig,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    # Charlie wins the race between our last look and the rename.
    precious = eicar_file.parent / "precious"
    precious.write_bytes(b"do not touch")
    real_move = folders.HeldFolder.move

    def swap_then_move(
        self: folders.HeldFolder, name: bytes, target: folders.Folder, new_name: bytes
    ) -> None:
        precious.replace(eicar_file)
        real_move(self, name, target, new_name)

    monkeypatch.setattr(folders.HeldFolder, "move", swap_then_move)

    with pytest.raises(quarantine.Refused) as refused:
        quarantine.put_away(detection, config)

    assert refused.value.reason == "changed"
    assert eicar_file.read_bytes() == b"do not touch"
    assert _held(config) == []
    assert quarantine.list_records(config) == []


def test_a48_a_second_name_made_at_the_last_moment_takes_it_back(
    detection: Detection,
    eicar_file: Path,
    config: AgentConfig,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    real_move = folders.HeldFolder.move

    def link_then_move(
        self: folders.HeldFolder, name: bytes, target: folders.Folder, new_name: bytes
    ) -> None:
        os.link(eicar_file, eicar_file.parent / "second")
        real_move(self, name, target, new_name)

    monkeypatch.setattr(folders.HeldFolder, "move", link_then_move)

    with pytest.raises(quarantine.Refused) as refused:
        quarantine.put_away(detection, config)

    assert refused.value.reason == "hard-linked"
    assert eicar_file.read_bytes() == eicar()


def test_a48_restore_goes_only_into_the_folder_the_file_came_from(
    detection: Detection, eicar_file: Path, config: AgentConfig, tmp_path: Path
) -> None:
    record = quarantine.put_away(detection, config)
    system = tmp_path / "system"
    system.mkdir()
    eicar_file.parent.rmdir()
    eicar_file.parent.symlink_to(system)

    with pytest.raises(quarantine.Refused) as by_link:
        quarantine.restore(config, record.id)
    assert by_link.value.reason == "link-in-path"

    eicar_file.parent.unlink()
    system.rename(eicar_file.parent)
    with pytest.raises(quarantine.Refused) as by_other_folder:
        quarantine.restore(config, record.id)
    assert by_other_folder.value.reason == "folder-changed"

    assert list(eicar_file.parent.iterdir()) == []
    assert quarantine.list_records(config) == [record]
    assert allowed.read(config) == {}

    quarantine.restore(config, record.id, destination=os.fspath(eicar_file.parent))
    assert eicar_file.read_bytes() == eicar()


def test_a48_a_file_swapped_while_it_is_restored_stays_in_the_vault(
    detection: Detection,
    eicar_file: Path,
    config: AgentConfig,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    record = quarantine.put_away(detection, config)
    real_settle = folders.HeldFolder.settle

    def swap_then_settle(
        self: folders.HeldFolder, name: bytes, target: folders.Folder, new_name: bytes
    ) -> None:
        passing = eicar_file.parent / os.fsdecode(name)
        passing.unlink()
        passing.write_bytes(b"Charlie's")
        real_settle(self, name, target, new_name)

    monkeypatch.setattr(folders.HeldFolder, "settle", swap_then_settle)

    with pytest.raises(quarantine.Refused) as refused:
        quarantine.restore(config, record.id)

    assert refused.value.reason == "folder-changed"
    assert quarantine.list_records(config) == [record]
    assert allowed.read(config) == {}


def test_a48_a_holding_folder_moved_away_does_not_undo_what_is_done(
    detection: Detection, eicar_file: Path, config: AgentConfig, monkeypatch: pytest.MonkeyPatch
) -> None:
    real_move = folders.HeldFolder.move
    calls = 0

    def far(self: folders.HeldFolder, name: bytes, target: folders.Folder, new_name: bytes) -> None:
        nonlocal calls
        calls += 1
        if calls == 1:
            raise OSError(errno.EXDEV, "Invalid cross-device link")
        real_move(self, name, target, new_name)
        # Charlie owns the folder, and moves ours.
        (held,) = eicar_file.parent.glob(".doorward-held-*")
        held.rename(eicar_file.parent / "mine")

    monkeypatch.setattr(folders.HeldFolder, "move", far)

    record = quarantine.put_away(detection, config)

    assert quarantine.list_records(config) == [record]
    assert not eicar_file.exists()
    assert _journal(config) == []
    assert list((eicar_file.parent / "mine").iterdir()) == []


def test_a48_recovery_does_not_trust_a_holding_folder_of_somebody_else(
    detection: Detection, eicar_file: Path, config: AgentConfig
) -> None:
    # Killed before anything moved; Charlie then makes the folder we would have held the file in.
    quarantine.delete(config, quarantine.put_away(detection, config).id)
    identifier = "01a20000-0000-7000-8000-000000000000"
    strange = eicar_file.parent / f".doorward-held-{identifier}"
    strange.mkdir(mode=0o755)
    (strange / identifier).write_bytes(b"Charlie's")
    found = (strange / identifier).stat()
    quarantine._journal(
        config,
        {
            "operation": "put-away",
            "id": identifier,
            "folder": quarantine._coded(os.fsencode(eicar_file.parent)),
            "name": quarantine._coded(b"invoice.com"),
            "beside": True,
            "device": found.st_dev,
            "inode": found.st_ino,
        },
    )

    (outcome,) = quarantine.recover(config)

    assert outcome.outcome == "taken-back"
    assert not eicar_file.exists()
    assert (strange / identifier).read_bytes() == b"Charlie's"
    assert _journal(config) == []


def test_restore_replaces_nothing(
    detection: Detection, eicar_file: Path, config: AgentConfig
) -> None:
    record = quarantine.put_away(detection, config)
    eicar_file.write_bytes(b"Alice's new file")

    with pytest.raises(quarantine.Refused) as refused:
        quarantine.restore(config, record.id)

    assert refused.value.reason == "occupied"
    assert eicar_file.read_bytes() == b"Alice's new file"
    assert [path.name for path in eicar_file.parent.iterdir()] == [eicar_file.name]
    assert quarantine.list_records(config) == [record]


def test_a_set_user_id_program_comes_back_as_it_was(eicar_file: Path, config: AgentConfig) -> None:
    eicar_file.chmod(0o4755)
    (found,) = scan.run([eicar_file], config)
    record = quarantine.put_away(found, config)

    quarantine.restore(config, record.id)

    assert stat.S_IMODE(eicar_file.stat().st_mode) == 0o4755


def test_a_file_changed_since_the_scan_is_left_alone(
    detection: Detection, eicar_file: Path, config: AgentConfig
) -> None:
    with eicar_file.open("r+b") as target:
        target.write(b"now it is something else entirely")

    with pytest.raises(quarantine.Refused) as refused:
        quarantine.put_away(detection, config)

    assert refused.value.reason == "changed"
    assert eicar_file.read_bytes().startswith(b"now it is something else")
    assert _held(config) == []
    assert list((config.quarantine_dir / "vault").iterdir()) == []


def test_a_file_of_a_package_is_refused_by_name_of_the_package(
    detection: Detection,
    eicar_file: Path,
    config: AgentConfig,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    lists = tmp_path / "info"
    lists.mkdir()
    (lists / "invoices:amd64.list").write_bytes(b"/.\n" + os.fsencode(eicar_file) + b"\n/usr\n")
    monkeypatch.setattr(packages, "DPKG_LISTS", os.fsencode(lists))

    with pytest.raises(quarantine.Refused) as refused:
        quarantine.put_away(detection, config)

    assert refused.value.reason == "package-file"
    assert "invoices" in str(refused.value)
    assert eicar_file.exists()


def test_dpkg_is_asked_under_both_names_of_a_merged_usr(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    lists = tmp_path / "info"
    lists.mkdir()
    (lists / "coreutils.list").write_bytes(b"/.\n/bin/ls\n")
    monkeypatch.setattr(packages, "DPKG_LISTS", os.fsencode(lists))

    assert packages.owner(b"/usr/bin/ls") == "coreutils"
    assert packages.owner(b"/usr/bin/lsx") is None
    assert packages.owner(b"/home/alice/ls") is None


def test_the_agents_own_files_are_refused(detection: Detection, config: AgentConfig) -> None:
    own = config.state_dir / "outbox.sqlite"
    own.write_bytes(eicar())
    claimed = dataclasses.replace(detection, location=os.fsencode(own))

    with pytest.raises(quarantine.Refused) as refused:
        quarantine.put_away(claimed, config)

    assert refused.value.reason == "own-file"
    assert own.exists()


def test_a_file_on_another_file_system_is_held_beside_itself(
    detection: Detection, eicar_file: Path, config: AgentConfig, monkeypatch: pytest.MonkeyPatch
) -> None:
    # As if the state folder were elsewhere: the first rename crosses file systems.
    real_move = folders.HeldFolder.move
    calls = 0

    def far(self: folders.HeldFolder, name: bytes, target: folders.Folder, new_name: bytes) -> None:
        nonlocal calls
        calls += 1
        if calls == 1:
            raise OSError(errno.EXDEV, "Invalid cross-device link")
        real_move(self, name, target, new_name)

    monkeypatch.setattr(folders.HeldFolder, "move", far)

    record = quarantine.put_away(detection, config)

    assert calls == 2
    assert list(eicar_file.parent.iterdir()) == []
    assert _journal(config) == []
    quarantine.restore(config, record.id)
    assert eicar_file.read_bytes() == eicar()


def test_a_full_disk_takes_everything_back(
    detection: Detection, eicar_file: Path, config: AgentConfig, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*_args: object, **_kwargs: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(vault, "seal", full)

    with pytest.raises(quarantine.Refused) as refused:
        quarantine.put_away(detection, config)

    assert refused.value.reason == "no-space"
    assert "they were 0640" in str(refused.value)
    assert stat.S_IMODE(eicar_file.stat().st_mode) in {0, 0o400}
    assert eicar_file.read_bytes() == eicar()
    assert _journal(config) == []
    assert _held(config) == []
    assert list((config.quarantine_dir / "vault").iterdir()) == []


@pytest.mark.parametrize("bound", ["files", "bytes"])
def test_past_its_bound_nothing_goes_into_the_vault_and_the_file_is_disarmed(
    bound: str, detection: Detection, eicar_file: Path, config: AgentConfig
) -> None:
    first = quarantine.put_away(detection, config)
    (sealed,) = (config.quarantine_dir / "vault").iterdir()
    eicar_file.write_bytes(eicar())
    eicar_file.chmod(0o4755)
    few = dataclasses.replace(config, vault_bytes=sealed.stat().st_size + 10)
    if bound == "files":
        few = dataclasses.replace(config, vault_files=1)
    (found,) = scan.run([eicar_file], few)

    with pytest.raises(quarantine.Refused) as refused:
        quarantine.put_away(found, few)

    assert refused.value.reason == "vault-full"
    assert "they were 4755" in str(refused.value)
    assert [record.id for record in quarantine.list_records(few)] == [first.id]
    closed = 0 if os.geteuid() == 0 else 0o400
    assert stat.S_IMODE(eicar_file.stat().st_mode) == closed
    assert _journal(few) == []
    # Seen again it is told again, and once there is room it goes; its rights come back with it.
    (again,) = scan.run([eicar_file], few)
    with pytest.raises(quarantine.Refused, match="taken before"):
        quarantine.put_away(again, few)
    quarantine.delete(few, first.id)
    record = quarantine.put_away(again, few)
    assert record.mode == 0o4755
    assert list((few.quarantine_dir / "disarmed").iterdir()) == []
    quarantine.restore(few, record.id)
    assert stat.S_IMODE(eicar_file.stat().st_mode) == 0o4755


def test_files_put_away_one_after_the_other_do_not_each_have_the_vault_looked_through(
    home: Path, config: AgentConfig, monkeypatch: pytest.MonkeyPatch
) -> None:
    looks: list[str] = []
    real = os.scandir

    def scandir(path: str) -> object:
        looks.append(os.fspath(path))
        return real(path)

    for number in range(4):
        (home / f"{number}.com").write_bytes(eicar())
    found = list(scan.run([home], config))
    vault = os.fspath(config.quarantine_dir / "vault")
    monkeypatch.setattr(os, "scandir", scandir)
    first = quarantine.put_away(found[0], config)
    quarantine.put_away(found[1], config)
    assert looks.count(vault) == 1
    # What another process does there is seen, and the bound is kept by what is known.
    os.unlink(os.path.join(vault, f"{first.id}.dwq"))  # noqa: PTH108, PTH118 - scandir is watched
    # Older kernels tell times of a folder by ticks of 4 ms.
    os.utime(vault, ns=(0, os.stat(vault).st_mtime_ns + 1))  # noqa: PTH116
    quarantine.put_away(found[2], dataclasses.replace(config, vault_files=2))
    assert looks.count(vault) == 2
    with pytest.raises(quarantine.Refused, match="full"):
        quarantine.put_away(found[3], dataclasses.replace(config, vault_files=2))
    assert looks.count(vault) == 2


def test_what_is_no_longer_what_was_scanned_keeps_its_rights_though_the_vault_is_full(
    detection: Detection, eicar_file: Path, config: AgentConfig
) -> None:
    none = dataclasses.replace(config, vault_files=0)
    with eicar_file.open("r+b") as file:
        file.write(b"harmless")
    with pytest.raises(quarantine.Refused) as refused:
        quarantine.put_away(detection, none)
    assert refused.value.reason == "changed"
    assert stat.S_IMODE(eicar_file.stat().st_mode) == 0o640


def test_the_rights_of_no_more_files_are_kept_than_the_vault_holds(
    detection: Detection, home: Path, config: AgentConfig
) -> None:
    few = dataclasses.replace(config, vault_files=2, vault_bytes=0)
    for number in range(4):
        (home / f"{number}.com").write_bytes(eicar())
    for found in scan.run([home], few):
        with pytest.raises(quarantine.Refused):
            quarantine.put_away(found, few)
    assert len(list((few.quarantine_dir / "disarmed").iterdir())) == 2
    assert {stat.S_IMODE(path.stat().st_mode) for path in home.iterdir()} <= {0, 0o400}


def test_a_damaged_vault_file_is_told_and_brings_back_nothing(
    detection: Detection, eicar_file: Path, config: AgentConfig
) -> None:
    record = quarantine.put_away(detection, config)
    sealed = config.quarantine_dir / "vault" / f"{record.id}.dwq"
    content = bytearray(sealed.read_bytes())
    content[-1] ^= 1
    sealed.write_bytes(content)

    with pytest.raises(vault.VaultDamaged):
        quarantine.restore(config, record.id)
    assert list(eicar_file.parent.iterdir()) == []
    assert allowed.read(config) == {}

    content[50] ^= 1
    sealed.write_bytes(content)
    assert quarantine.list_records(config) == []
    assert quarantine.unreadable(config) == [record.id]


def test_a_vault_file_cut_short_is_noticed(config: AgentConfig, home: Path, tmp_path: Path) -> None:
    content = os.urandom(5000)
    source = tmp_path / "source"
    source.write_bytes(content)
    sealed = tmp_path / "sealed"
    key = os.urandom(32)
    digest = __import__("hashlib").sha256(content).hexdigest()
    with source.open("rb") as reading, sealed.open("wb") as writing:
        vault.seal(
            key,
            {"a": 1},
            source=reading.fileno(),
            target=writing.fileno(),
            size=len(content),
            digest=digest,
            piece_bytes=1024,
        )
    whole = vault.Opened(key, os.fspath(sealed))
    assert b"".join(whole.pieces()) == content
    whole.close()

    # Four whole pieces left of five: each is genuine, but the last one says it is not the last.
    held = sealed.read_bytes()
    start = len(held) - (5000 + 5 * 16)
    sealed.write_bytes(held[: start + 4 * (1024 + 16)])
    cut = vault.Opened(key, os.fspath(sealed))
    with pytest.raises(vault.VaultDamaged):
        list(cut.pieces())
    cut.close()


def test_a_lost_key_is_told_not_replaced(detection: Detection, config: AgentConfig) -> None:
    quarantine.put_away(detection, config)
    (config.quarantine_dir / "key").unlink()

    assert quarantine.unreadable(config) != []
    assert not (config.quarantine_dir / "key").exists()


def test_secrets_are_closed_to_others(detection: Detection, config: AgentConfig) -> None:
    quarantine.put_away(detection, config)

    for path in config.state_dir.rglob("*"):
        assert stat.S_IMODE(path.stat().st_mode) & 0o077 == 0, path


def test_an_id_that_is_a_path_is_not_in_quarantine(config: AgentConfig, home: Path) -> None:
    for identifier in ("../../etc/passwd", "", "a/b", "x\0y", ".."):
        with pytest.raises(quarantine.NotInQuarantine):
            quarantine.find(config, identifier)


def test_names_that_are_no_text_come_back_byte_for_byte(home: Path, config: AgentConfig) -> None:
    name = os.fsencode(home) + b"/\xff\xfe\n\x1b[31m\xe2\x80\xae.com"
    with open(name, "wb") as target:  # noqa: PTH123 (a name that is no text)
        target.write(eicar())
    (found,) = scan.run([home], config)
    assert found.path.isprintable()

    record = quarantine.put_away(found, config)
    assert os.listdir(os.fsencode(home)) == []  # noqa: PTH208
    assert quarantine.find(config, record.id).location == name
    quarantine.restore(config, record.id)

    assert os.listdir(os.fsencode(home)) == [os.path.basename(name)]  # noqa: PTH119, PTH208


def test_the_way_by_names_keeps_the_same_promises(
    detection: Detection,
    eicar_file: Path,
    config: AgentConfig,
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
) -> None:
    # What Windows uses; here it can at least be run.
    monkeypatch.setattr(folders, "BY_DESCRIPTOR", False)

    record = quarantine.put_away(detection, config)
    assert not eicar_file.exists()
    quarantine.restore(config, record.id)
    assert eicar_file.read_bytes() == eicar()
    assert eicar_file.stat().st_mtime_ns == detection.mtime_ns

    (tmp_path / "link").symlink_to(eicar_file.parent)
    through = dataclasses.replace(
        detection, location=os.fsencode(tmp_path / "link" / eicar_file.name)
    )
    with pytest.raises(quarantine.Refused) as refused:
        quarantine.put_away(through, config)
    assert refused.value.reason == "link-in-path"
