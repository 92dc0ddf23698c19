"""What is written into a watched folder is looked at at once, and nothing of it is forgotten."""

from __future__ import annotations

import ctypes
import dataclasses
import os
import shutil
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import msgspec
import pytest
from agent.tests.long_paths import beside_too_long, deeper_than_a_path

from doorward_agent import allowed, definitions, mounts, quarantine, scan, treatment
from doorward_agent.config import AgentConfig
from doorward_agent.definitions.build import eicar
from doorward_agent.findings import Outcome
from doorward_agent.inspection import Detection
from doorward_agent.protection import RealTimeStatus
from doorward_agent.realtime import fanotify, gate, places
from doorward_agent.realtime import watch as watch_module
from doorward_agent.realtime.fanotify import Change, Overflow
from doorward_agent.realtime.watch import Watch
from doorward_protocol.settings import Exclusion, RealTime, Settings

PATIENCE = 20.0

linux = pytest.mark.skipif(not sys.platform.startswith("linux"), reason="fanotify is Linux's")
root = pytest.mark.skipif(
    not sys.platform.startswith("linux") or os.geteuid() != 0, reason="fanotify needs root"
)


class Guarded:
    """A watch over one folder, what it has told, and what became of what it found."""

    def __init__(self, config: AgentConfig, home: Path) -> None:
        self.config, self.home = config, home
        self.told: list[RealTimeStatus] = []
        self.dealt: list[tuple[Detection, Outcome]] = []
        self.watch = Watch(
            config,
            deal=self._deal,
            tell=self.told.append,
            is_own=lambda pid: pid == os.getpid(),
        )

    def _deal(self, detection: Detection, definitions_version: str, put_away: bool) -> bool:
        outcome = treatment.treat(
            detection,
            self.config,
            put_away=put_away,
            teller=None,
            definitions_version=definitions_version,
        )
        self.dealt.append((detection, outcome))
        return outcome.action == "quarantined"

    def apply(self, **real_time: Any) -> RealTimeStatus:
        """Watch the home alone, and what else is said."""
        wanted = {"usual_places": False, "folders": (os.fspath(self.home),), **real_time}
        return self.watch.apply(1, Settings(real_time=RealTime(**wanted)))

    def until(self, true: Callable[[], bool]) -> None:
        """Work until something has happened."""
        end = time.monotonic() + PATIENCE
        while not true():
            assert time.monotonic() < end, (self.watch.status, self.dealt)
            self.watch.turn(most=0.02)

    def settle(self) -> None:
        """Work until there is nothing more to do."""
        for _ in range(5):
            self.watch.turn(most=0.02)
        self.until(lambda: not self.watch.busy)
        self.watch.turn(most=0.15)
        self.until(lambda: not self.watch.busy)

    @property
    def found(self) -> list[str]:
        return [detection.path for detection, _ in self.dealt]


@pytest.fixture
def guarded(config: AgentConfig, home: Path) -> Iterator[Guarded]:
    made = Guarded(config, home)
    yield made
    made.watch.close()


@pytest.fixture(params=["fanotify", "changes"])
def by(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str:
    """Both ways of hearing that something was written."""
    if request.param == "fanotify" and os.geteuid() != 0:
        pytest.skip("fanotify needs root")
    if request.param == "changes":
        without_fanotify(monkeypatch)
    return str(request.param)


def without_fanotify(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(flags: int) -> int:
        raise fanotify.Unavailable("it needs root (CAP_SYS_ADMIN)")

    monkeypatch.setattr(fanotify, "begin", refuse)


def test_the_test_file_is_put_away_as_soon_as_it_is_written(guarded: Guarded, by: str) -> None:
    status = guarded.apply()
    assert (status.state, status.by, status.folders) == ("on", by, 1)
    (guarded.home / "letter.txt").write_text("Dear Bob")
    bad = guarded.home / "invoice.com"
    bad.write_bytes(eicar())

    guarded.until(lambda: bool(guarded.dealt))

    assert not bad.exists()
    assert guarded.found == [os.fspath(bad)]
    assert [record.path for record in quarantine.list_records(guarded.config)] == [os.fspath(bad)]
    guarded.settle()
    assert (guarded.home / "letter.txt").exists()
    assert guarded.watch.status.found == 1


def test_a_folder_made_a_moment_ago_is_watched_from_its_first_file_on(
    guarded: Guarded, by: str
) -> None:
    guarded.apply()
    deep = guarded.home / "new" / "deeper" / "still"
    deep.mkdir(parents=True)
    (deep / "x.com").write_bytes(eicar())
    guarded.until(lambda: bool(guarded.dealt))
    assert guarded.found == [os.fspath(deep / "x.com")]


def test_what_is_moved_here_is_looked_at_alone_or_in_its_folder(
    guarded: Guarded, by: str, tmp_path: Path
) -> None:
    elsewhere = tmp_path / "elsewhere"
    (elsewhere / "deep").mkdir(parents=True)
    (elsewhere / "one.part").write_bytes(eicar())
    (elsewhere / "deep" / "two").write_bytes(eicar())
    guarded.apply()
    (elsewhere / "one.part").rename(guarded.home / "one.com")
    guarded.until(lambda: len(guarded.dealt) == 1)
    (elsewhere / "deep").rename(guarded.home / "deep")
    guarded.until(lambda: len(guarded.dealt) == 2)
    assert guarded.found == [
        os.fspath(guarded.home / "one.com"),
        os.fspath(guarded.home / "deep" / "two"),
    ]


def test_a_file_that_appears_by_a_link_is_looked_at(
    guarded: Guarded, by: str, tmp_path: Path
) -> None:
    (tmp_path / "outside").write_bytes(eicar())
    guarded.apply()
    (guarded.home / "second name").hardlink_to(tmp_path / "outside")
    guarded.until(lambda: bool(guarded.dealt))
    # Put away only one of its names? Refused, and told.
    assert guarded.dealt[0][1].action == "uncorrected"
    assert "second name" in guarded.dealt[0][1].detail or "name" in guarded.dealt[0][1].detail


def test_a_folder_may_have_any_name(guarded: Guarded, by: str) -> None:
    # The last is what the kernel says of a folder that is gone.
    names = (b"with\nline", b"caf\xe9", b"gone (deleted)")
    guarded.apply()
    for name in names:
        folder = guarded.home / os.fsdecode(name)
        folder.mkdir()
        guarded.settle()
        bad = folder / "x.com"
        bad.write_bytes(eicar())
        guarded.until(lambda bad=bad: not bad.exists())  # type: ignore[misc]  # its default


def test_one_file_with_an_unreadable_name_does_not_end_the_watch(guarded: Guarded, by: str) -> None:
    guarded.apply()
    for number in range(3):
        odd = Path(os.fsdecode(os.fsencode(guarded.home) + b"/\xff%d.com" % number))
        odd.write_bytes(eicar())
        guarded.until(lambda odd=odd: not odd.exists())  # type: ignore[misc]  # its default
    plain = guarded.home / "invoice.com"
    plain.write_bytes(eicar())
    guarded.until(lambda: not plain.exists())
    assert guarded.watch.status.state == "on"


def test_a_watch_that_cannot_be_begun_again_says_so_until_it_can(
    guarded: Guarded, monkeypatch: pytest.MonkeyPatch
) -> None:
    from doorward_agent.realtime import changes

    without_fanotify(monkeypatch)
    guarded.apply()
    begin = changes._watcher

    def refuse(folders: list[str]) -> object:
        raise OSError("no more watches")

    monkeypatch.setattr(changes, "_watcher", refuse)
    Path(os.fsdecode(os.fsencode(guarded.home) + b"/\xff")).write_bytes(b"odd")
    guarded.until(lambda: guarded.watch.status.state == "off")
    assert "no more watches" in guarded.watch.status.reason
    meanwhile = guarded.home / "invoice.com"
    meanwhile.write_bytes(eicar())
    monkeypatch.setattr(changes, "_watcher", begin)
    guarded.until(lambda: guarded.watch.status.state == "on" and not meanwhile.exists())


def test_folders_too_deep_for_any_path_do_not_end_the_watch(guarded: Guarded, by: str) -> None:
    guarded.apply()
    deeper_than_a_path(guarded.home)
    plain = guarded.home / "invoice.com"
    plain.write_bytes(eicar())
    guarded.until(lambda: not plain.exists())
    assert guarded.watch.status.state == "on"


@root
def test_a_file_without_a_name_at_first_is_looked_at_once_it_has_one(guarded: Guarded) -> None:
    guarded.apply()
    handle = os.open(guarded.home, os.O_TMPFILE | os.O_WRONLY, 0o600)
    os.write(handle, eicar())
    # linkat(2): AT_SYMLINK_FOLLOW gives the open file a name.
    named = ctypes.CDLL(None).linkat(
        -100, b"/proc/self/fd/%d" % handle, -100, os.fsencode(guarded.home / "x.com"), 0x400
    )
    assert named == 0
    guarded.until(lambda: bool(guarded.dealt))
    os.close(handle)
    assert guarded.found == [os.fspath(guarded.home / "x.com")]


def test_told_only_it_stays_and_is_told_once(guarded: Guarded, by: str) -> None:
    guarded.apply(mode="notify")
    bad = guarded.home / "x.com"
    for _ in range(3):
        bad.write_bytes(eicar())
        guarded.settle()
    assert bad.exists()
    assert [outcome.action for _, outcome in guarded.dealt] == ["detected"]
    # Another place is another finding.
    shutil.copy(bad, guarded.home / "copy.com")
    guarded.settle()
    assert len(guarded.dealt) == 2


def test_what_the_settings_leave_out_and_what_a_person_keeps_stays(
    guarded: Guarded, by: str
) -> None:
    left_out = guarded.home / "left out"
    left_out.mkdir()
    settings = Settings(
        real_time=RealTime(usual_places=False, folders=(os.fspath(guarded.home),)),
        exclusions={"a": Exclusion(path=os.fspath(left_out))},
    )
    guarded.watch.apply(1, settings)
    (left_out / "x.com").write_bytes(eicar())
    bad = guarded.home / "invoice.com"
    bad.write_bytes(eicar())
    guarded.until(lambda: len(guarded.dealt) == 1)
    assert (left_out / "x.com").exists()

    (record,) = quarantine.list_records(guarded.config)
    quarantine.restore(guarded.config, record.id)
    guarded.settle()
    assert bad.exists(), "brought back by a person, it stays"
    assert allowed.holds(guarded.config, record.sha256, os.fsencode(bad))
    assert len(guarded.dealt) == 1


def test_what_was_found_clean_is_not_read_again_by_a_scan(guarded: Guarded, by: str) -> None:
    guarded.apply()
    for number in range(20):
        (guarded.home / f"letter-{number}").write_text(f"Dear Bob, {number}")
    guarded.settle()
    guarded.watch.close()
    run = scan.run([guarded.home], guarded.watch._config)
    assert list(run) == []
    assert run.summary.cached == 20
    guarded.watch = Guarded(guarded.config, guarded.home).watch  # for the fixture to close


def test_twenty_writers_at_once_lose_nothing(guarded: Guarded, by: str) -> None:
    guarded.apply()
    each = 6

    def write(number: int) -> None:
        folder = guarded.home / f"writer-{number}" / "of many"
        folder.mkdir(parents=True)
        for turn in range(each):
            (folder / f"letter-{turn}").write_text(f"Dear Bob, {number} {turn}")
            (folder / f"bad-{turn}.com").write_bytes(eicar())

    writers = [threading.Thread(target=write, args=(number,)) for number in range(20)]
    for writer in writers:
        writer.start()
    guarded.until(lambda: len(guarded.dealt) >= 20 * each)
    for writer in writers:
        writer.join()
    guarded.settle()
    assert len(guarded.dealt) == 20 * each
    assert not list(guarded.home.rglob("*.com"))
    assert len(list(guarded.home.rglob("letter-*"))) == 20 * each


def test_more_than_the_system_could_tell_is_looked_for(
    guarded: Guarded, by: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    guarded.apply()
    (guarded.home / "deep").mkdir()
    guarded.settle()
    source: Any = guarded.watch._kernel or guarded.watch._others[0]
    real = source.changes
    lost = guarded.home / "deep" / "x.com"
    lost.write_bytes(eicar())
    if by == "changes":
        # The library tells some ten milliseconds later: so that it has, and nobody was told.
        end = time.monotonic() + PATIENCE
        while not list(real()):
            assert time.monotonic() < end
    else:
        list(real())
    answers: list[list[Change | Overflow]] = [[Overflow()]]
    told = lambda: answers.pop() if answers else real()  # noqa: E731 - one line, used twice
    monkeypatch.setattr(source, "changes", told)
    guarded.until(lambda: bool(guarded.dealt))
    assert guarded.found == [os.fspath(lost)]
    assert guarded.watch.status.overflows == 1


@pytest.mark.parametrize("bound", ["watch_backlog", "watch_sweeps"])
def test_more_than_can_wait_here_is_looked_for(
    bound: str, config: AgentConfig, home: Path, by: str
) -> None:
    """Nothing is forgotten, and nothing grows: what finds no room is found on the disk."""
    few = dataclasses.replace(config, watch_backlog=4, watch_sweeps=50)
    if bound == "watch_sweeps":
        few = dataclasses.replace(config, watch_sweeps=1)
    guarded = Guarded(few, home)
    try:
        guarded.apply()
        waited = []
        for number in range(16):
            where = home if bound == "watch_backlog" else home / f"folder-{number}"
            where.mkdir(exist_ok=True)
            (where / f"{number}.com").write_bytes(eicar() + b"\n" * number)
        hear = guarded.watch._heard

        def heard(change: Change) -> None:
            hear(change)
            waited.append((len(guarded.watch._backlog), len(guarded.watch._sweeps)))

        guarded.watch._heard = heard  # type: ignore[method-assign]  # only to look
        guarded.until(lambda: len(guarded.dealt) == 16)
        assert not list(home.rglob("*.com"))
        assert guarded.watch.status.overflows >= 1
        assert max(backlog for backlog, _sweeps in waited) <= few.watch_backlog
        # And those that look for what was missed.
        assert max(sweeps for _backlog, sweeps in waited) <= few.watch_sweeps + 3
        guarded.settle()
        assert guarded.watch._behind is None
    finally:
        guarded.watch.close()


@linux
def test_a_file_whose_path_is_too_long_hides_none_beside_it(home: Path) -> None:
    """Looked for after something was missed: the system lists the name, and refuses the path."""
    bad = beside_too_long(home)
    changed = set(watch_module._changed([os.fsencode(home)], 0.0))
    assert {os.fsencode(path) for path in bad} <= changed


def test_who_writes_without_end_does_not_put_off_what_was_missed(
    config: AgentConfig, home: Path, by: str
) -> None:
    few = dataclasses.replace(config, watch_backlog=20)
    guarded = Guarded(few, home)
    try:
        (home / "here-before.com").write_bytes(eicar())
        guarded.apply()
        guarded.watch._fall_behind(0.0)
        turns, end = 0, time.monotonic() + PATIENCE
        while "here-before.com" not in str(guarded.found):
            for number in range(9):
                guarded.watch._backlog[os.fsencode(home / f"{turns}-{number}")] = False
                (home / f"{turns}-{number}").write_text(f"letter {turns} {number}")
            guarded.watch.turn(most=0.02)
            turns += 1
            # Not so many turns: how long one takes is the machine's.
            assert time.monotonic() < end
    finally:
        guarded.watch.close()


def test_of_what_nobody_takes_only_that_there_was_more_is_kept(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    from doorward_agent.realtime import changes

    batches = [{(1, f"/home/{turn}-{number}") for number in range(2)} for turn in range(1000)]
    done = threading.Event()

    class Library:
        """What the library tells, without a system behind it."""

        def watch(self, *_given: object) -> Any:
            if batches:
                return batches.pop()
            done.set()
            return "stop"

        def close(self) -> None:
            """Nothing to let go."""

    monkeypatch.setattr(changes, "_watcher", lambda _folders: Library())
    began = time.time()
    watch = changes.FolderWatch([b"/home"], wake=lambda: None, most=5)
    assert done.wait(PATIENCE)
    told = list(watch.changes())
    # Two at a time until there are five, and one word for all the others.
    assert [type(each) for each in told] == [Change] * 6 + [Overflow]
    assert isinstance(told[-1], Overflow)
    assert told[-1].since is not None
    assert began - 1 <= told[-1].since <= time.time()
    watch.close()


@root
@pytest.mark.slow
def test_the_kernels_queue_runs_over_and_nothing_is_lost(guarded: Guarded) -> None:
    guarded.apply()
    most = int(Path("/proc/sys/fs/fanotify/max_queued_events").read_text())
    for number in range(most + 100):
        (guarded.home / f"letter-{number}").write_text("")
    (guarded.home / "x.com").write_bytes(eicar())
    guarded.until(lambda: bool(guarded.dealt))
    assert guarded.watch.status.overflows == 1


@pytest.mark.parametrize("how", [signal.SIGKILL, signal.SIGSTOP])
def test_a_worker_that_is_killed_or_hangs_costs_no_finding(
    how: signal.Signals, config: AgentConfig, home: Path
) -> None:
    guarded = Guarded(
        dataclasses.replace(config, file_timeout=0.5, slowest_bytes_per_second=1 << 30), home
    )
    guarded.apply()
    (home / "letter").write_text("Dear Bob")
    guarded.settle()
    inspection = guarded.watch._inspection
    assert inspection is not None
    (worker,) = inspection.worker_pids
    os.kill(worker, how)
    (home / "hangs").write_text("the file it was at")
    for number in range(10):
        (home / f"bad-{number}.com").write_bytes(eicar())
    guarded.until(lambda: len(guarded.dealt) >= 9)
    guarded.settle()
    # Whoever is at the front of a worker that hangs is blamed, once; the others go on.
    assert len(guarded.dealt) in {9, 10}
    assert guarded.watch.status.state == "on"
    guarded.watch.close()


def test_without_an_engine_it_says_so_and_catches_up_when_it_is_back(
    guarded: Guarded, by: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    real_popen = subprocess.Popen

    def broken(command: list[str], **options: Any) -> subprocess.Popen[bytes]:
        return real_popen([sys.executable, "-c", "raise SystemExit(3)"], **options)

    guarded.apply()
    monkeypatch.setattr(subprocess, "Popen", broken)
    (guarded.home / "x.com").write_bytes(eicar())
    guarded.until(lambda: guarded.watch.status.state == "off")
    assert "engine" in guarded.watch.status.reason
    monkeypatch.undo()
    if by == "changes":
        without_fanotify(monkeypatch)
    guarded.until(lambda: bool(guarded.dealt))
    guarded.until(lambda: guarded.watch.status.state == "on")


def test_new_definitions_are_taken_while_it_watches(
    config: AgentConfig, home: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    guarded = Guarded(dataclasses.replace(config, watch_check=0.0), home)
    guarded.apply()
    (home / "before.txt").write_text("hunter two")
    guarded.settle()
    from doorward_agent.definitions import build

    newer = tmp_path / "newer"
    newer.mkdir()
    (newer / "newer.yar").write_text('rule newer { strings: $a = "hunter two" condition: $a }')
    build.write(os.fspath(newer), today=__import__("datetime").date(2026, 12, 1))
    found = definitions.current(os.fspath(newer))
    monkeypatch.setattr(definitions, "in_force", lambda state: found)
    (home / "wakes.txt").write_text("Dear Bob")
    guarded.settle()
    (home / "after.txt").write_text("hunter two")
    guarded.until(lambda: bool(guarded.dealt))
    assert guarded.found == [os.fspath(home / "after.txt")]
    guarded.watch.close()


# ---------------------------------------------------------------------------------------- settings


def test_switched_off_and_on_again_it_watches_as_the_settings_say(
    guarded: Guarded, by: str
) -> None:
    assert guarded.apply(mode="off").words == "off: the settings say so"
    (guarded.home / "off.com").write_bytes(eicar())
    guarded.watch.turn(most=0.1)
    assert guarded.apply().state == "on"
    (guarded.home / "on.com").write_bytes(eicar())
    guarded.until(lambda: bool(guarded.dealt))
    assert guarded.found == [os.fspath(guarded.home / "on.com")]
    # What was written while it was off is for the scans.
    assert (guarded.home / "off.com").exists()
    assert [status.state for status in guarded.told if not status.found] == ["off", "on"]


def test_what_is_written_while_the_settings_change_is_not_lost(guarded: Guarded, by: str) -> None:
    guarded.apply()
    for number in range(5):
        (guarded.home / f"bad-{number}.com").write_bytes(eicar())
        guarded.apply()
    guarded.until(lambda: len(guarded.dealt) >= 5)
    guarded.settle()
    assert len(guarded.dealt) == 5


def test_a_folder_that_is_not_here_is_told(guarded: Guarded, by: str) -> None:
    status = guarded.apply(folders=(os.fspath(guarded.home), "/nowhere/at\u202eall"))
    assert status.state == "on"
    assert status.reason == "not here: /nowhere/at\\u202eall"
    status = guarded.apply(folders=("/nowhere",))
    assert (status.state, status.reason) == ("off", "none of the folders to watch is here")


def test_holding_back_without_root_is_told_and_the_rest_works(
    guarded: Guarded, monkeypatch: pytest.MonkeyPatch
) -> None:
    without_fanotify(monkeypatch)
    status = guarded.apply(block=(os.fspath(guarded.home),))
    assert (status.state, status.by, status.gated) == ("partly", "changes", 0)
    assert "not held back" in status.reason
    (guarded.home / "x.com").write_bytes(eicar())
    guarded.until(lambda: bool(guarded.dealt))


@root
def test_without_root_fanotify_says_what_it_needs() -> None:
    os.seteuid(65534)
    try:
        with pytest.raises(fanotify.Unavailable, match="needs root"):
            fanotify.FilesystemWatch([b"/tmp"], mounts.mounted())
    finally:
        os.seteuid(0)


def test_places_are_the_outermost_and_leave_out_the_agent_itself(
    config: AgentConfig, home: Path
) -> None:
    (home / "inner").mkdir()
    found = places.chosen(
        RealTime(
            usual_places=False,
            folders=(os.fspath(home), os.fspath(home / "inner"), "relative", "C:\\x"),
        ),
        config,
    )
    assert found.folders == (os.fsencode(home.resolve()),)
    assert found.missing == ("relative", "C:\\x")
    assert found.holds(os.fsencode(home / "inner" / "x"))
    assert not found.holds(os.fsencode(home) + b"-beside/x")
    assert not found.holds(os.fsencode(config.state_dir / "outbox.db"))


def test_the_usual_places_are_peoples_folders_and_where_files_arrive(config: AgentConfig) -> None:
    found = places.chosen(RealTime(), config)
    assert os.fsencode(Path.home().resolve()) in found.folders
    assert b"/" not in found.folders


# ---------------------------------------------------------------------------- keeping files closed

OPENS = """
import sys
for path in sys.argv[1:]:
    try:
        with open(path, "rb") as source:
            print(len(source.read()), flush=True)
    except PermissionError:
        print("refused", flush=True)
"""


def begin(*words: object) -> subprocess.Popen[str]:
    """Begin a program of this test's own, with its words."""
    return subprocess.Popen(  # noqa: S603 - the words are ours
        [str(word) for word in words],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
    )


def opens(*files: Path) -> subprocess.Popen[str]:
    return begin(sys.executable, "-S", "-c", OPENS, *files)


@root
def test_a_file_with_a_threat_cannot_be_opened_and_a_clean_one_can(guarded: Guarded) -> None:
    bad, good, empty = (guarded.home / name for name in ("x.com", "letter", "empty"))
    bad.write_bytes(eicar())
    good.write_text("Dear Bob")
    empty.touch()
    status = guarded.apply(mode="notify", block=(os.fspath(guarded.home),))
    assert (status.state, status.gated) == ("on", 1)
    reader = opens(bad, good, empty, bad)
    guarded.until(lambda: reader.poll() is not None)
    assert reader.communicate()[0].split() == ["refused", "8", "0", "refused"]
    assert len(guarded.dealt) == 1


@root
def test_refused_it_is_put_away(guarded: Guarded) -> None:
    bad = guarded.home / "x.com"
    bad.write_bytes(eicar())
    guarded.apply(block=(os.fspath(guarded.home),))
    reader = opens(bad)
    guarded.until(lambda: reader.poll() is not None and bool(guarded.dealt))
    assert reader.communicate()[0].split() == ["refused"]
    assert guarded.dealt[0][1].action == "quarantined"


@root
def test_a_folder_made_in_a_closed_one_is_closed_too(guarded: Guarded) -> None:
    guarded.apply(mode="notify", block=(os.fspath(guarded.home),))
    deep = guarded.home / "new" / "deeper"
    deep.mkdir(parents=True)
    guarded.settle()
    (deep / "x.com").write_bytes(eicar())
    reader = opens(deep / "x.com")
    guarded.until(lambda: reader.poll() is not None)
    assert reader.communicate()[0].split() == ["refused"]


@root
def test_nobody_waits_longer_than_the_budget_for_an_answer(config: AgentConfig, home: Path) -> None:
    guarded = Guarded(dataclasses.replace(config, gate_seconds=0.3), home)
    good = home / "letter"
    good.write_text("Dear Bob")
    guarded.apply(block=(os.fspath(home),))
    # Nobody takes a turn: the part that looks at files is stuck.
    began = time.monotonic()
    assert opens(good).communicate(timeout=PATIENCE)[0].split() == ["8"]
    assert 0.3 <= time.monotonic() - began < 5
    held = guarded.watch._gate
    assert held is not None
    assert held.late == 1
    # The verdict that comes later answers nobody, and does no harm.
    guarded.settle()
    guarded.watch.close()


@root
def test_an_engine_that_hangs_lets_files_be_opened(config: AgentConfig, home: Path) -> None:
    guarded = Guarded(dataclasses.replace(config, gate_seconds=0.3), home)
    (home / "first").write_text("Dear Bob")
    (home / "second").write_text("Dear Alice")
    guarded.apply(block=(os.fspath(home),))
    reader = opens(home / "first")
    guarded.until(lambda: reader.poll() is not None)
    assert reader.communicate()[0].split() == ["8"]
    inspection = guarded.watch._inspection
    assert inspection is not None
    (worker,) = inspection.worker_pids
    os.kill(worker, signal.SIGSTOP)
    other = opens(home / "second")
    guarded.until(lambda: other.poll() is not None)
    assert other.communicate()[0].split() == ["10"]
    guarded.watch.close()


@root
def test_the_agents_own_processes_never_wait(guarded: Guarded) -> None:
    bad = guarded.home / "x.com"
    bad.write_bytes(eicar())
    guarded.apply(block=(os.fspath(guarded.home),))
    assert bad.read_bytes() == eicar()
    assert not gate.is_own(1)
    assert gate.is_own(os.getpid())
    child = begin(sys.executable, "-c", "input()")
    assert gate.is_own(child.pid)
    child.communicate("\n")
    assert not gate.is_own(child.pid)


WATCHES = """
import os, sys
from pathlib import Path
from doorward_agent.config import AgentConfig
from doorward_agent.realtime.watch import Watch
from doorward_protocol.settings import RealTime, Settings

watch = Watch(
    AgentConfig(state_dir=Path(sys.argv[1]), clamd=False, gate_seconds=60.0),
    deal=lambda *_: False, tell=lambda status: print(status.gated, flush=True),
)
watch.apply(1, Settings(real_time=RealTime(usual_places=False, block=(sys.argv[2],))))
sys.stdin.read()
"""


@root
def test_when_the_agent_dies_everything_can_be_opened(config: AgentConfig, home: Path) -> None:
    good = home / "letter"
    good.write_text("Dear Bob")
    # A parent of its own, so that we are not of the agent's family.
    words = (sys.executable, "-c", WATCHES, config.state_dir, home)
    guard = begin("/bin/sh", "-c", '"$@"; true', "sh", *words)
    assert guard.stdout is not None
    assert guard.stdin is not None
    assert guard.stdout.readline() == "1\n"
    reader = opens(good)
    with pytest.raises(subprocess.TimeoutExpired):
        reader.wait(0.3)
    for line in Path("/proc").glob("[0-9]*/stat"):
        fields = line.read_text().rpartition(")")[2].split()
        if int(fields[1]) == guard.pid:
            os.kill(int(line.parent.name), signal.SIGKILL)
    assert reader.communicate(timeout=PATIENCE)[0].split() == ["8"]
    guard.communicate()


# --------------------------------------------------------------------------------- what is mounted


@root
def test_what_is_mounted_below_a_watched_folder_is_watched_and_can_be_taken_out(
    guarded: Guarded,
) -> None:
    stick = guarded.home / "stick"
    stick.mkdir()
    guarded.apply()
    mounted = begin("/usr/bin/mount", "-t", "tmpfs", "tmpfs", stick)
    mounted.communicate()
    if mounted.returncode:
        pytest.skip("nothing can be mounted here")
    try:
        guarded.settle()
        (stick / "x.com").write_bytes(eicar())
        guarded.until(lambda: bool(guarded.dealt))
        assert guarded.found == [os.fspath(stick / "x.com")]
    finally:
        taken = begin("/usr/bin/umount", stick)
        taken.communicate()
    assert taken.returncode == 0


def test_a_status_says_itself_in_words() -> None:
    assert (
        RealTimeStatus(state="on", by="fanotify", folders=1).words == "on by fanotify, in 1 folder"
    )
    both = RealTimeStatus(state="partly", by="both", folders=3, gated=1, reason="why")
    assert both.words == (
        "partly by fanotify, and watching for changes where that can't, in 3 folders,"
        " opening held back in 1 (why)"
    )
    assert msgspec.json.decode(msgspec.json.encode(both), type=RealTimeStatus) == both
