"""What a device refuses, by name: nothing old, mixed, changed or signed by others is ever taken."""

from __future__ import annotations

import json
import shutil
from datetime import timedelta
from pathlib import Path

import pytest
import time_machine
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from securesystemslib.signer import CryptoSigner
from tests.definitions.workshop import Device, Workshop
from tuf.api.metadata import Metadata, Timestamp

from doorward.protection.definitions import keys, repository, sets, signing
from doorward_agent import upkeep


def test_a50_a_set_is_taken_and_what_it_names_is_found(olga: Workshop, laptop: Device) -> None:
    made = olga.hashes(["malicious"])
    outcome = laptop.update(made.number)
    assert (outcome.number, outcome.changed) == (made.number, True)
    assert upkeep.told(laptop.config, laptop.db).version == made.number
    assert laptop.update().changed is False


def test_a50_rollback_a_timestamp_older_than_one_seen_is_refused(
    olga: Workshop, laptop: Device, tmp_path: Path
) -> None:
    first = olga.hashes(["one"])
    old = tmp_path / "old"
    shutil.copytree(repository.published(), old)
    with time_machine.travel(repository.moment() + timedelta(hours=1)):
        second = olga.hashes(["one", "two"])
        laptop.update(second.number)
        laptop.files.folder = old
        assert laptop.refusal(first.number).code == "rollback"
    assert laptop.number == second.number


def test_a50_rollback_a_lower_set_that_is_still_signed_is_not_taken(
    olga: Workshop, laptop: Device
) -> None:
    first, second = olga.hashes(["one"]), olga.hashes(["one", "two"])
    laptop.update(second.number)
    assert laptop.update(first.number).changed is False
    assert laptop.number == second.number


def test_a50_freeze_a_timestamp_past_its_end_is_refused(olga: Workshop, laptop: Device) -> None:
    made = olga.hashes(["one"])
    laptop.update(made.number)
    with time_machine.travel(repository.moment() + repository.LIFE["timestamp"] * 1.01):
        assert laptop.refusal().code == "expired"
        # The worker signs in time, and all is well again.
        assert signing.renew(repository.moment()) == 1
        assert laptop.update().number == made.number


def test_a50_freeze_is_judged_by_the_servers_clock_not_by_a_wrong_one(
    olga: Workshop, laptop: Device
) -> None:
    made = olga.hashes(["one"])
    laptop.hears(made.number)
    with time_machine.travel(repository.moment() - timedelta(days=4000)):
        offset = timedelta(days=4000).total_seconds()
        outcome = _update_by(laptop, offset)
        assert outcome == made.number


def _update_by(device: Device, clock_offset: float) -> int:
    from typing import cast

    from doorward_agent import link
    from doorward_agent.updates import updating

    files = cast(link.Files, device.files)
    return updating.noted_run(device.config, device.db, files, clock_offset=clock_offset).number


def test_a50_tamper_a_changed_part_is_refused(olga: Workshop, laptop: Device) -> None:
    made = olga.hashes(["one"])
    laptop.files.change = lambda name, content: (
        content[:-1] + bytes([content[-1] ^ 1]) if name.startswith("parts/") else content
    )
    refused = laptop.refusal(made.number)
    assert (refused.code, refused.number) == ("tampered", made.number)
    laptop.files.change = None
    assert laptop.update().number == made.number, "what lay there spoiled does no harm"


@pytest.mark.parametrize("file", ["timestamp.json", "snapshot.json", "targets.json"])
def test_a50_tamper_changed_metadata_is_refused(olga: Workshop, laptop: Device, file: str) -> None:
    made = olga.hashes(["one"])
    laptop.files.change = lambda name, content: (
        content.replace(b'"spec_version":"1.0.31"', b'"spec_version":"1.0.30"')
        if name.endswith(file)
        else content
    )
    assert laptop.refusal(made.number).code == "wrong-key"


def test_a50_wrong_key_a_timestamp_signed_by_another_is_refused(
    olga: Workshop, laptop: Device
) -> None:
    made = olga.hashes(["one"])
    laptop.update(made.number)
    other = CryptoSigner(Ed25519PrivateKey.generate())

    def forged(name: str, content: bytes) -> bytes:
        if name != "timestamp.json":
            return content
        timestamp = Metadata[Timestamp].from_bytes(content)
        timestamp.signed.version += 1
        timestamp.sign(other)
        return repository.encoded(timestamp)

    laptop.files.change = forged
    assert laptop.refusal().code == "wrong-key"


def test_a50_wrong_key_another_servers_repository_is_refused(
    olga: Workshop, laptop: Device, tmp_path: Path
) -> None:
    foreign = tmp_path / "foreign"
    shutil.copytree(repository.published(), foreign)
    root = json.loads((foreign / "1.root.json").read_bytes())
    root["signed"]["expires"] = "2099-01-01T00:00:00Z"
    (foreign / "1.root.json").write_text(json.dumps(root))
    laptop.files.folder = foreign
    assert laptop.refusal(2026112203).code == "wrong-root"


def test_a50_mixed_files_of_different_days_are_refused(
    olga: Workshop, laptop: Device, tmp_path: Path
) -> None:
    olga.hashes(["one"])
    old = repository.load()
    with time_machine.travel(repository.moment() + timedelta(hours=1)):
        made = olga.hashes(["one", "two"])
        new = repository.load()
        stale = repository.encoded(old.targets)
        wanted = f"{new.targets.signed.version}.targets.json"
        laptop.files.change = lambda name, content: stale if name == wanted else content
        assert laptop.refusal(made.number).code == "mixed"


def test_a50_endless_data_is_cut(olga: Workshop, laptop: Device) -> None:
    made = olga.hashes(["one"])
    for part in ("timestamp.json", ".targets.json", "sets/", "parts/"):
        laptop.files.change = lambda name, content, part=part: (  # type: ignore[misc]  # mypy has no word for a bound default
            content + bytes(64 * 1024 * 1024) if part in name else content
        )
        before = laptop.files.bytes
        assert laptop.refusal(made.number).code == "too-long", part
        assert laptop.files.bytes - before < 1024 * 1024, "it stops reading"


def test_a50_a_set_that_is_not_signed_is_refused(olga: Workshop, laptop: Device) -> None:
    made = olga.hashes(["one"])
    refused = laptop.refusal(made.number + 1)
    assert (refused.code, refused.number) == ("not-signed", made.number + 1)


def test_a_device_that_was_told_no_root_takes_nothing(olga: Workshop, tmp_path: Path) -> None:
    stranger = Device.at(tmp_path / "stranger")
    assert stranger.refusal().code == "no-root"
    stranger.db.close()


def test_the_first_root_that_was_told_stays_pinned(olga: Workshop, laptop: Device) -> None:
    from doorward_protocol.messages import DefinitionsRoot

    made = olga.hashes(["one"])
    upkeep.hear(laptop.db, made.number, DefinitionsRoot(version=1, sha256="0" * 64))
    assert laptop.update().number == made.number


def test_a_server_that_cannot_be_reached_is_no_refusal(olga: Workshop, laptop: Device) -> None:
    from doorward_agent import link

    made = olga.hashes(["one"])
    laptop.files.down = True
    with pytest.raises(link.ServerUnreachable):
        laptop.update(made.number)
    told = upkeep.told(laptop.config, laptop.db)
    assert (told.code, told.refused_version) == ("unreachable", 0)


def test_root_keys_are_replaced_and_devices_follow(olga: Workshop, laptop: Device) -> None:
    made = olga.hashes(["one"])
    laptop.update(made.number)
    root = repository.load().root.signed
    folder = olga.folder / "keys"
    for role in ("root", "targets", "timestamp", "snapshot"):
        root = repository.load().root.signed
        keys.replace(
            role,
            [folder / "root-2.pem", folder / "root-3.pem"],
            old=root.roles[role].keyids[0],
            new_file=None if role in repository.ONLINE else folder / f"new-{role}.pem",
            passphrase=b"another long passphrase",
            ask=lambda path: (
                b"another long passphrase" if path.name.startswith("new") else olga.ask(path)
            ),
            now=repository.moment(),
        )
    signer = keys.targets_signer(
        [folder / "new-targets.pem"], ask=lambda path: b"another long passphrase"
    )
    olga.signer = lambda: signer  # type: ignore[method-assign]  # the operator has a new key
    second = olga.hashes(["one", "two"])
    assert laptop.update(second.number).number == second.number
    with pytest.raises(keys.KeysRefused):
        keys.targets_signer([folder / "targets.pem"], ask=olga.ask)


def test_one_root_key_of_three_is_not_enough(olga: Workshop) -> None:
    folder = olga.folder / "keys"
    with pytest.raises(keys.KeysRefused, match="2 of the 3"):
        keys.renew([folder / "root-1.pem"], ask=olga.ask, now=repository.moment())
    assert repository.newest_root() == 1
    keys.renew(
        [folder / "root-1.pem", folder / "root-3.pem"], ask=olga.ask, now=repository.moment()
    )
    assert repository.newest_root() == 2


def test_root_keys_are_never_written_into_the_data_folder(olga: Workshop) -> None:
    shutil.rmtree(repository.home())
    with pytest.raises(keys.KeysRefused, match="data folder"):
        keys.make(
            repository.home() / "keys", passphrase=b"long enough for a key", now=repository.moment()
        )
    written = [path.read_bytes() for path in (olga.folder / "keys").iterdir()]
    assert all(b"ENCRYPTED" in pem for pem in written)


def test_an_earlier_set_comes_back_as_a_new_one(olga: Workshop, laptop: Device) -> None:
    good = olga.hashes(["one"])
    assert good.state == "all", "no device of the server's own is there to try it first"
    bad = olga.hashes(["one", "two"])
    laptop.update(bad.number)
    back = sets.take_back(
        olga.signer(), to=None, by="olga", now=repository.moment(), why="false alarms"
    )
    assert back.number > bad.number
    bad.refresh_from_db()
    assert (bad.state, back.state) == ("withdrawn", "all")
    laptop.update(back.number)
    assert laptop.number == back.number
