"""A remembered verdict is never wrong: it may only be forgotten."""

import dataclasses
import errno
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from doorward_agent import config as settings_of_agent
from doorward_agent import definitions, mounts, scan, verdicts
from doorward_agent.config import AgentConfig
from doorward_agent.definitions.build import eicar

VERSION = "definitions 1"


@pytest.fixture
def prepared(config: AgentConfig) -> AgentConfig:
    """A state folder with its rooms."""
    settings_of_agent.prepare(config)
    return config


def _facts(**changed: int) -> os.stat_result:
    held = {"mode": 0o100644, "ino": 7, "dev": 3, "size": 100, "mtime": 10**18, "ctime": 10**18}
    held.update(changed)
    ten = (held["mode"], held["ino"], held["dev"], 1, 0, 0, held["size"], 0, 0, 0)
    return os.stat_result(
        ten, {"st_mtime_ns": held["mtime"], "st_ctime_ns": held["ctime"], "st_atime_ns": 0}
    )


@pytest.fixture
def letters(home: Path) -> Path:
    """Twenty clean files."""
    for number in range(20):
        (home / f"letter-{number}").write_text(f"Dear Bob, {number}")
    return home


def _scan(place: Path, config: AgentConfig) -> scan.ScanSummary:
    run = scan.run([place], config)
    list(run)
    return run.summary


def test_an_unchanged_file_is_not_read_again(letters: Path, config: AgentConfig) -> None:
    first = _scan(letters, config)
    assert (first.scanned, first.cached) == (20, 0)

    again = _scan(letters, config)
    assert (again.files, again.scanned, again.cached, again.bytes) == (20, 0, 20, 0)


def test_an_unchanged_rescan_loads_no_engine(letters: Path, config: AgentConfig) -> None:
    _scan(letters, config)
    program = (
        "import sys\n"
        "from pathlib import Path\n"
        "from doorward_agent import scan\n"
        "from doorward_agent.config import AgentConfig\n"
        "config = AgentConfig(state_dir=Path(sys.argv[1]), clamd=False)\n"
        "run = scan.run([sys.argv[2]], config)\n"
        "list(run)\n"
        "assert run.summary.cached == 20, run.summary\n"
        "heavy = 'yara_x cryptography psutil socket subprocess json zipfile httpx2 rich msgspec'\n"
        "loaded = [name for name in heavy.split() if name in sys.modules]\n"
        "assert not loaded, loaded\n"
    )
    subprocess.run(  # noqa: S603 (our own program)
        [sys.executable, "-c", program, os.fspath(config.state_dir), os.fspath(letters)], check=True
    )


@pytest.mark.parametrize("what", ["content", "content and mtime", "replaced", "size"])
def test_a_changed_file_is_read_again(what: str, letters: Path, config: AgentConfig) -> None:
    _scan(letters, config)
    target = letters / "letter-3"
    before = target.stat()
    if what == "replaced":
        other = letters / "new"
        other.write_text("Dear Bob, 4")
        os.utime(other, ns=(before.st_atime_ns, before.st_mtime_ns))
        other.replace(target)
    elif what == "size":
        with target.open("a") as writing:
            writing.write("x")
    else:
        # The same size; and a liar who sets the modification time back cannot set the change time.
        with target.open("r+") as writing:
            writing.write("Dear Eve")
    if what == "content and mtime":
        os.utime(target, ns=(before.st_atime_ns, before.st_mtime_ns))

    again = _scan(letters, config)

    assert (again.scanned, again.cached) == (1, 19)


def test_a_finding_is_never_remembered(home: Path, config: AgentConfig) -> None:
    (home / "x.com").write_bytes(eicar())
    for _ in range(3):
        assert len(list(scan.run([home], config))) == 1


def test_a_file_changed_a_moment_ago_is_not_remembered(letters: Path, config: AgentConfig) -> None:
    patient = dataclasses.replace(config, verdict_settle_ns=10**12)
    assert _scan(letters, patient).scanned == 20
    assert _scan(letters, patient).scanned == 20


def test_settled_means_unchanged_while_read_and_left_alone_before() -> None:
    facts = _facts()
    old = {"now_ns": 10**18 + 2 * 10**9, "settle_ns": 2 * 10**9}
    assert verdicts.settled(facts, facts, **old)
    assert not verdicts.settled(facts, facts, now_ns=10**18 + 2 * 10**9 - 1, settle_ns=2 * 10**9)
    # A time in the future is no reason to trust.
    assert not verdicts.settled(facts, facts, now_ns=10**17, settle_ns=2 * 10**9)
    for name in ("ino", "dev", "size", "mtime", "ctime"):
        assert not verdicts.settled(facts, _facts(**{name: 8}), **old), name


@pytest.mark.parametrize("name", ["ino", "dev", "size", "mtime", "ctime"])
def test_every_fact_counts(name: str, prepared: AgentConfig) -> None:
    held = verdicts.open(prepared, VERSION)
    held.remember_clean(_facts())
    assert held.known_clean(_facts())
    assert not held.known_clean(_facts(**{name: 8}))
    held.close()


def test_another_version_of_anything_forgets(letters: Path, config: AgentConfig) -> None:
    _scan(letters, config)
    assert _scan(letters, dataclasses.replace(config, archive_depth=7)).cached == 0
    assert _scan(letters, config).cached == 0
    assert _scan(letters, config).cached == 20


def test_the_version_names_definitions_and_engine(config: AgentConfig) -> None:
    found = definitions.current()
    told = scan.version(config, found)
    assert found.version in told
    assert "yara-x 1." in told
    newer = definitions.DefinitionSet(found.folder, "9999.01.01 other")
    assert scan.version(config, newer) != told


def test_it_survives_a_restart(prepared: AgentConfig) -> None:
    held = verdicts.open(prepared, VERSION)
    for inode in range(1000):
        held.remember_clean(_facts(ino=inode))
    held.close()

    again = verdicts.open(prepared, VERSION)
    assert len(again) == 1000
    assert all(again.known_clean(_facts(ino=inode)) for inode in range(1000))
    assert not any(again.known_clean(_facts(ino=inode)) for inode in range(1000, 2000))
    again.close()


def test_it_grows_and_keeps_everything(prepared: AgentConfig) -> None:
    small = dataclasses.replace(prepared, verdict_slots=64)
    held = verdicts.open(small, VERSION)
    for inode in range(20_000):
        held.remember_clean(_facts(ino=inode))
    assert all(held.known_clean(_facts(ino=inode)) for inode in range(20_000))
    held.close()
    again = verdicts.open(small, VERSION)
    assert all(again.known_clean(_facts(ino=inode)) for inode in range(20_000))
    again.close()


def test_after_its_lifetime_everything_is_looked_at_again(prepared: AgentConfig) -> None:
    held = verdicts.open(prepared, VERSION, now=1000.0)
    held.remember_clean(_facts())
    held.close()
    for moment, known in ((1000.0 + prepared.verdict_lifetime - 1, True),
                          (1000.0 + prepared.verdict_lifetime, False)):  # fmt: skip
        again = verdicts.open(prepared, VERSION, now=moment)
        assert again.known_clean(_facts()) == known
        again.close()


def test_a_clock_set_back_forgets(prepared: AgentConfig) -> None:
    held = verdicts.open(prepared, VERSION, now=2000.0)
    held.remember_clean(_facts())
    held.close()
    again = verdicts.open(prepared, VERSION, now=1000.0)
    assert not again.known_clean(_facts())
    again.close()


def test_forget_all_forgets(letters: Path, config: AgentConfig) -> None:
    _scan(letters, config)
    verdicts.forget_all(config)
    assert _scan(letters, config).cached == 0


def test_the_table_does_not_tell_what_is_in_it(prepared: AgentConfig) -> None:
    held = verdicts.open(prepared, VERSION)
    held.remember_clean(_facts())
    held.close()
    table = (prepared.verdicts_dir / "clean.table").read_bytes()
    key = (prepared.verdicts_dir / "key").read_bytes()
    assert key not in table
    # With another key the same facts are another mark: nothing can be planted without it.
    (prepared.verdicts_dir / "key").write_bytes(os.urandom(32))
    (prepared.verdicts_dir / "clean.table").write_bytes(table)
    other = verdicts.open(prepared, VERSION)
    assert not other.known_clean(_facts())
    other.close()


@settings(max_examples=150, deadline=None)
@given(damage=st.lists(
        st.tuples(st.integers(0, 2000), st.binary(min_size=1, max_size=40)), max_size=8
    ),
       cut=st.one_of(st.none(), st.integers(0, 1100)))  # fmt: skip
def test_damage_only_forgets(
    tmp_path_factory: pytest.TempPathFactory, damage: list[tuple[int, bytes]], cut: int | None
) -> None:
    state = tmp_path_factory.mktemp("state")
    state.chmod(0o700)
    config = AgentConfig(state_dir=state, verdict_slots=64)
    settings_of_agent.prepare(config)
    held = verdicts.open(config, VERSION)
    for inode in range(20):
        held.remember_clean(_facts(ino=inode))
    held.close()
    path = config.verdicts_dir / "clean.table"
    content = bytearray(path.read_bytes())
    for at, junk in damage:
        content[at : at + len(junk)] = junk
    path.write_bytes(content[:cut])

    again = verdicts.open(config, VERSION)
    assert not any(again.known_clean(_facts(ino=inode)) for inode in range(20, 300))
    for inode in range(100, 200):
        again.remember_clean(_facts(ino=inode))
    again.close()


WRITER = """
import sys
from pathlib import Path
from doorward_agent import scan
from doorward_agent.config import AgentConfig
config = AgentConfig(
    state_dir=Path(sys.argv[1]), clamd=False, verdict_settle_ns=0, verdict_slots=64, workers=1)
sys.stdout.write("go\\n")
sys.stdout.flush()
while True:
    list(scan.run([sys.argv[2]], config, remember=False))
"""


@pytest.fixture
def many(home: Path) -> Path:
    """A thousand clean files and one that is not."""
    for number in range(1000):
        (home / f"letter-{number}").write_text(f"Dear Bob, {number}")
    (home / "x.com").write_bytes(eicar())
    return home


def test_killed_in_a_scan_it_is_still_right(many: Path, config: AgentConfig) -> None:
    for moment in (0.3, 0.5, 0.8):
        writer = subprocess.Popen(  # noqa: S603 (our own program)
            [sys.executable, "-c", WRITER, os.fspath(config.state_dir), os.fspath(many)],
            stdout=subprocess.PIPE,
        )
        assert writer.stdout is not None
        assert writer.stdout.readline() == b"go\n"
        with pytest.raises(subprocess.TimeoutExpired):
            writer.wait(timeout=moment)
        writer.send_signal(signal.SIGKILL)
        writer.wait()
        writer.stdout.close()
        run = scan.run([many], dataclasses.replace(config, verdict_slots=64))
        assert [found.rule for found in run] == ["DW-TEST-0001"]
        assert run.summary.cached + run.summary.scanned == 1001


def test_two_scans_at_once_disturb_nothing(prepared: AgentConfig) -> None:
    small = dataclasses.replace(prepared, verdict_slots=64)
    one, two = verdicts.open(small, VERSION), verdicts.open(small, VERSION)
    for inode in range(500):
        one.remember_clean(_facts(ino=inode))
        two.remember_clean(_facts(ino=10_000 + inode))
    assert all(one.known_clean(_facts(ino=inode)) for inode in range(500))
    assert all(two.known_clean(_facts(ino=10_000 + inode)) for inode in range(500))
    one.close()
    two.close()


def test_a_full_disk_forgets_but_scans(
    letters: Path, config: AgentConfig, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(_handle: int, _content: bytes) -> int:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(os, "write", full)
    for _ in range(2):
        summary = _scan(letters, config)
        assert (summary.scanned, summary.cached, summary.complete) == (20, 0, True)
    assert not list(config.verdicts_dir.glob("*.new"))


def test_no_page_of_the_table_is_a_hole(prepared: AgentConfig) -> None:
    # On a full disk, touching a hole for the first time would end the process.
    verdicts.open(prepared, VERSION).close()
    found = (prepared.verdicts_dir / "clean.table").stat()
    assert found.st_blocks * 512 >= found.st_size


MOUNTS = b"""\
21 1 8:1 / / rw,relatime - ext4 /dev/sda1 rw
22 21 0:20 / /proc rw - proc proc rw
23 21 0:5 / /dev rw - devtmpfs udev rw
24 23 0:21 / /dev/shm rw - tmpfs tmpfs rw
25 21 0:40 / /mnt/nas rw - nfs4 nas:/x rw
26 21 8:17 / /media/USB\\040STICK rw - vfat /dev/sdb1 rw
27 21 0:41 / /home/alice/cloud rw - fuse.rclone cloud: rw
28 21 0:50 /@home /srv rw - btrfs /dev/sdc1 rw
broken line
"""


@pytest.mark.parametrize(
    ("device", "path", "remembered"),
    [
        (os.makedev(8, 1), b"/etc/passwd", True),
        (os.makedev(0, 21), b"/dev/shm/x", True),
        (os.makedev(0, 40), b"/mnt/nas/x", False),
        (os.makedev(8, 17), b"/media/USB STICK/x", False),
        (os.makedev(0, 41), b"/home/alice/cloud/x", False),
        # btrfs: the device of a subvolume is in no list; the mount around it tells.
        (os.makedev(0, 77), b"/srv/x", True),
        (os.makedev(0, 78), b"/mnt/nas/deep/x", False),
    ],
)
def test_only_local_file_systems_are_trusted(device: int, path: bytes, remembered: bool) -> None:
    assert mounts.can_remember(mounts.mounted(MOUNTS), device=device, path=path) is remembered


def test_nothing_is_trusted_where_nothing_is_known() -> None:
    assert not mounts.can_remember((), device=1, path=b"/x")


def test_a_walk_stays_out_of_the_kernels_views_but_not_of_files_inside_them() -> None:
    found = mounts.mounted(MOUNTS)
    left_out = mounts.not_entered(found, network=False)
    assert left_out[b"/proc"] == "kernel-view"
    assert left_out[b"/mnt/nas"] == "network-mount"
    assert left_out[b"/home/alice/cloud"] == "network-mount"
    assert b"/media/USB STICK" not in left_out
    assert b"/mnt/nas" not in mounts.not_entered(found, network=True)
    assert mounts.files_within(found, b"/dev", left_out) == [b"/dev/shm"]
    assert mounts.barred(found, b"/proc/1", left_out) == "kernel-view"
    assert mounts.barred(found, b"/dev/shm/x", left_out) == ""
    assert mounts.barred(found, b"/dev/disk", left_out) == "kernel-view"
    assert mounts.barred(found, b"/mnt/nas/x", left_out) == ""
