"""Whatever a worker does, the agent lives, other files are scanned, nothing passes for clean."""

import base64
import bz2
import dataclasses
import gzip
import lzma
import os
import signal
import socket
import subprocess
import sys
import tarfile
import time
import zipfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import yara_x
import zstandard

from doorward_agent import definitions, scan
from doorward_agent.config import AgentConfig
from doorward_agent.definitions import build
from doorward_agent.definitions.build import eicar
from doorward_agent.engines import channel, compiled, pool, yara

# A worker that misbehaves on demand.
STUBBORN = """
import encodings.idna, os, signal, socket, sys
from doorward_agent.engines import worker

real = worker.Examiner.examine

def examine(self, descriptor):
    head = os.pread(descriptor, 20, 0)
    if head.startswith(b"HANG"):
        signal.pause()
    if head.startswith(b"DIE"):
        os.kill(os.getpid(), signal.SIGKILL)
    if head.startswith(b"PANIC"):
        raise type("PanicException", (BaseException,), {})("the engine panicked")
    if head.startswith(b"SPIN"):
        import resource
        resource.setrlimit(resource.RLIMIT_CPU, (1, 1))
        while True:
            pass
    if head.startswith(b"EATS"):
        eaten = []
        while True:
            eaten.append(bytes(1 << 20))
    if head.startswith(b"MEMORY"):
        bytearray(1 << 40)
    if head.startswith(b"LIE"):
        os.write(int(sys.argv[2]), (4).to_bytes(4, "little") + b"junk")
    if head.startswith(b"READ"):
        open("/etc/passwd").close()
    if head.startswith(b"SIGNAL"):
        os.kill(os.getppid(), 0)
    if head.startswith(b"CONNECT"):
        socket.create_connection(("127.0.0.1", int(head[8:])), timeout=5).close()
    if head.startswith(b"WRITE"):
        os.write(os.open("/tmp/doorward-worker-wrote-this", os.O_CREAT | os.O_WRONLY), b"x")
    return real(self, descriptor)

worker.Examiner.examine = examine
sys.exit(worker.main(sys.argv[1:]))
"""


STARTS: list[float] = []
"""When each worker of the test at hand was started."""


@pytest.fixture
def stubborn(config: AgentConfig, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> AgentConfig:
    """An agent whose workers misbehave for files that begin with a certain word."""
    program = tmp_path / "stubborn.py"
    program.write_text(STUBBORN)
    real_popen = subprocess.Popen
    STARTS.clear()

    def started(command: list[str], **options: Any) -> subprocess.Popen[bytes]:
        if "-m" not in command:
            return real_popen(command, **options)
        at = command.index("-m")
        STARTS.append(time.monotonic())
        return real_popen([*command[:at], os.fspath(program), *command[at + 2 :]], **options)

    monkeypatch.setattr(subprocess, "Popen", started)
    return dataclasses.replace(config, file_timeout=1.0, slowest_bytes_per_second=1 << 30)


@pytest.mark.parametrize(
    ("word", "reason"),
    [
        ("HANG", "engine-timeout"),
        ("DIE", "engine-crash"),
        ("PANIC", "engine-failed"),
        ("MEMORY", "engine-failed"),
        ("EATS", "engine-failed"),
        ("LIE", "engine-crash"),
    ],
)
def test_one_bad_file_costs_only_itself(
    word: str, reason: str, home: Path, stubborn: AgentConfig
) -> None:
    for number in range(60):
        (home / f"letter-{number}").write_text(f"Dear Bob, {number}")
    (home / "bad").write_text(word)
    (home / "x.com").write_bytes(eicar())

    run = scan.run([home], stubborn)
    found = list(run)

    assert [one.rule for one in found] == ["DW-TEST-0001"]
    assert run.summary.errors == {reason: 1}
    assert run.summary.scanned == 61
    assert not run.summary.complete
    # Whoever hangs once hangs again; whoever dies may have been killed from outside.
    assert len(STARTS) == (3 if word in {"DIE", "LIE"} else 2)
    # And it is not remembered.
    again = scan.run([home], stubborn)
    list(again)
    assert again.summary.errors == {reason: 1}
    assert again.summary.cached == 60


@pytest.mark.skipif(os.geteuid() != 0, reason="a plain user may not be able to write there anyway")
def test_a_worker_can_write_no_file(home: Path, stubborn: AgentConfig) -> None:
    (home / "bad").write_text("WRITE")
    run = scan.run([home], stubborn)
    list(run)
    assert not run.summary.complete
    wrote = Path("/tmp/doorward-worker-wrote-this")  # noqa: S108 (must not come to be)
    assert not wrote.exists() or wrote.stat().st_size == 0
    wrote.unlink(missing_ok=True)


def confined() -> set[str]:
    """What the system lets a process give up, tried in one of its own."""
    program = (
        "from doorward_agent.engines import worker; from doorward_agent.config import AgentConfig;"
        "print(*worker.give_up_rights(AgentConfig()))"
    )
    told = subprocess.run([sys.executable, "-c", program], capture_output=True, check=True)  # noqa: S603 - ours
    return set(told.stdout.decode().split())


def test_asvs_15_2_5_a_worker_reads_nothing_but_what_it_is_handed(
    home: Path, stubborn: AgentConfig
) -> None:
    if "files" not in confined():
        pytest.skip("the kernel has no Landlock")
    (home / "bad").write_text("READ")
    (home / "worse").write_text("SIGNAL")
    (home / "x.com").write_bytes(eicar())
    run = scan.run([home], stubborn)
    assert [one.rule for one in run] == ["DW-TEST-0001"]
    # Both were refused: an error of the file, by which the worker goes on.
    assert run.summary.errors == {"unreadable": 2}
    assert len(STARTS) == 1


def test_asvs_15_2_5_a_worker_reaches_nobody(home: Path, stubborn: AgentConfig) -> None:
    if not {"network", "files"} & confined():
        pytest.skip("the kernel confines nothing")
    with socket.create_server(("127.0.0.1", 0)) as listening:
        listening.settimeout(0.0)
        (home / "bad").write_text(f"CONNECT {listening.getsockname()[1]}")
        run = scan.run([home], stubborn)
        assert list(run) == []
        assert run.summary.errors == {"unreadable": 1}
        with pytest.raises(BlockingIOError):
            listening.accept()


def test_confined_a_worker_still_opens_every_kind_of_file(home: Path, config: AgentConfig) -> None:
    member = eicar()
    packed = {
        "a.gz": gzip.compress(member),
        "a.bz2": bz2.compress(member),
        "a.xz": lzma.compress(member),
        "a.zst": zstandard.compress(member),
        "a.eml": b"From: charlie\nMIME-Version: 1.0\n"
        b"Content-Type: application/octet-stream; name=x.com\n"
        b"Content-Transfer-Encoding: base64\n\n" + base64.b64encode(member) + b"\n",
    }
    for name, content in packed.items():
        (home / name).write_bytes(content)
    with zipfile.ZipFile(home / "a.zip", "w", zipfile.ZIP_LZMA) as archive:
        archive.writestr("x.com", member)
    with tarfile.open(home / "a.tar", "w") as tar:
        tar.add(home / "a.gz", "inner.gz")
    run = scan.run([home], config)
    assert {Path(one.path).name for one in run} == {*packed, "a.zip", "a.tar"}
    assert run.summary.complete


def test_a_worker_that_has_used_up_its_processor_time_is_replaced(
    home: Path, stubborn: AgentConfig
) -> None:
    """The kernel ends it (RLIMIT_CPU); the file it was at costs itself, the agent goes on."""
    (home / "bad").write_text("SPIN")
    (home / "x.com").write_bytes(eicar())
    run = scan.run([home], dataclasses.replace(stubborn, file_timeout=30.0))
    assert [one.rule for one in run] == ["DW-TEST-0001"]
    assert run.summary.errors == {"engine-crash": 1}


def test_workers_killed_from_outside_are_replaced(home: Path, config: AgentConfig) -> None:
    for number in range(800):
        (home / f"letter-{number}").write_text(f"Dear Bob, {number}")
    (home / "x.com").write_bytes(eicar())
    run: scan.Run

    killed = 0

    def kill_now_and_then() -> bool:
        nonlocal killed
        if killed < 5 and run.summary.scanned > 100 * killed + 50:
            killed += 1
            for pid in run.worker_pids:
                os.kill(pid, signal.SIGKILL)
        return False

    run = scan.run([home], config, cancel=kill_now_and_then)
    found = list(run)
    assert killed == 5
    assert [one.rule for one in found] == ["DW-TEST-0001"]
    summary = run.summary
    assert summary.scanned + sum(summary.errors.values()) == 801


def test_two_workers_share_the_work(home: Path, config: AgentConfig) -> None:
    for number in range(400):
        (home / f"letter-{number}").write_text(f"Dear Bob, {number} " * 200)
    run = scan.run([home], dataclasses.replace(config, workers=2))
    seen: set[int] = set()
    iterator = iter(run)
    (home / "x.com").write_bytes(eicar())
    for _ in iterator:
        seen.update(run.worker_pids)
    assert run.summary.scanned == 401
    assert len(seen) == 2


@pytest.mark.parametrize("transport", ["descriptors", "paths"])
def test_both_ways_of_handing_over_find_the_same(
    transport: str, home: Path, config: AgentConfig
) -> None:
    (home / "x.com").write_bytes(eicar())
    for number in range(100):
        (home / f"letter-{number}").write_text(f"Dear Bob, {number}")
    # Root's own temporary files are closed to the worker, which opens paths as nobody.
    if os.geteuid() == 0 and transport == "paths":
        for folder in (*home.parents, home):
            if os.fspath(folder).startswith("/tmp/"):  # noqa: S108 (pytest's own folder)
                folder.chmod(0o755)
    run = scan.run([home], dataclasses.replace(config, transport=transport))
    assert [found.rule for found in run] == ["DW-TEST-0001"]
    assert run.summary.scanned == 101
    assert run.summary.complete


def test_an_engine_that_cannot_start_is_an_error_not_a_clean_scan(
    home: Path, config: AgentConfig, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    broken = tmp_path / "definitions"
    broken.mkdir()
    (broken / "broken.yar").write_text("rule broken { condition: nonsense }")
    build.write(os.fspath(broken), today=__import__("datetime").date(2026, 1, 1))
    found = definitions.current(os.fspath(broken))
    monkeypatch.setattr(definitions, "current", lambda: found)
    (home / "letter").write_text("Dear Bob")

    run = scan.run([home], config)

    with pytest.raises(pool.EngineUnavailable, match="unknown identifier"):
        list(run)
    assert run.summary.scanned == 0
    assert run.worker_pids == []


def test_a_slow_rule_times_out_and_is_told(
    home: Path, config: AgentConfig, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    slow = tmp_path / "definitions"
    slow.mkdir()
    (slow / "slow.yar").write_text(
        "rule slow { condition: for all i in (0..2000000000) : (uint8(i % filesize) >= 0) }"
    )
    build.write(os.fspath(slow), today=__import__("datetime").date(2026, 1, 1))
    found = definitions.current(os.fspath(slow))
    monkeypatch.setattr(definitions, "current", lambda: found)
    (home / "letter").write_text("Dear Bob")
    # The warm-up is four bytes: it must not be the slow one.
    (slow / "slow.yar").write_text(
        "rule slow { condition: filesize > 4 and"
        " for all i in (0..2000000000) : (uint8(i % filesize) >= 0) }"
    )

    run = scan.run([home], dataclasses.replace(config, engine_timeout=1))

    assert list(run) == []
    assert run.summary.limited == {"engine-timeout": 1}
    assert run.summary.cached == 0


def test_a_worker_has_low_priority_and_little_in_its_environment(
    home: Path, config: AgentConfig, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("DOORWARD_SECRET", "hunter2")
    (home / "x.com").write_bytes(eicar())
    run = scan.run([home], config)
    for _ in run:
        (pid,) = run.worker_pids
        assert os.getpriority(os.PRIO_PROCESS, pid) == 19
        assert b"hunter2" not in Path(f"/proc/{pid}/environ").read_bytes()
        limits = Path(f"/proc/{pid}/limits").read_text()
        assert "Max file size             0" in limits
        assert "Max core file size        0" in limits


@pytest.fixture
def pair() -> Iterator[tuple[channel.SocketChannel, channel.SocketChannel]]:
    """Both ends of a channel over sockets."""
    ours, theirs = socket.socketpair()
    one, two = channel.SocketChannel(ours), channel.SocketChannel(theirs)
    yield one, two
    one.close()
    two.close()


def test_descriptors_arrive_with_their_messages(
    pair: tuple[channel.SocketChannel, channel.SocketChannel], tmp_path: Path
) -> None:
    one, two = pair
    for number in range(100):
        path = tmp_path / str(number)
        path.write_text(str(number))
        handle = os.open(path, os.O_RDONLY)
        one.send({"job": number}, [handle] * (number % 3))
        os.close(handle)
        # Some at once, some one by one: framing and descriptors must stay together.
        if number % 7 == 6:
            for earlier in range(number - 6, number + 1):
                received = two.receive()
                assert received is not None
                message, descriptors = received
                assert message["job"] == earlier
                assert len(descriptors) == earlier % 3
                for descriptor in descriptors:
                    assert os.pread(descriptor, 10, 0) == str(earlier).encode()
                    os.close(descriptor)


def test_an_unreadable_message_breaks_the_channel(
    pair: tuple[channel.SocketChannel, channel.SocketChannel],
) -> None:
    one, two = pair
    one._end.sendall(b"\xff\xff\xff\xff")
    with pytest.raises(channel.ChannelBroken):
        two.receive()


@pytest.mark.parametrize(
    "values", [{}, {"h": 1}, {"h": "x", "n": "y"}, {"h": "x", "n": 1, "hits": 3}]
)
def test_an_answer_that_cannot_be_read_breaks_the_channel(values: dict[str, object]) -> None:
    with pytest.raises(channel.ChannelBroken):
        channel.Answer.decoded(values)


def _sources() -> list[tuple[str, str]]:
    return yara.read_sources(definitions.current().rule_files)


def _engine(rules: yara_x.Rules) -> yara.YaraEngine:
    return yara.YaraEngine(
        rules, version="1", timeout=5, window_bytes=1 << 20, window_overlap_bytes=1000
    )


def test_rules_are_compiled_once_and_find_the_same(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    place = tmp_path / "rules.compiled"
    kept = os.fspath(place)
    before = _engine(compiled.rules(_sources(), kept=kept)).scan(eicar())
    assert place.stat().st_mode & 0o777 == 0o600
    assert list(tmp_path.iterdir()) == [place]
    monkeypatch.setattr(yara, "compiled", lambda sources: pytest.fail("compiled again"))
    assert _engine(compiled.rules(_sources(), kept=kept)).scan(eicar()) == before
    assert before


def _is_cut(content: bytes) -> bytes:
    return content[:-1]


def _is_flipped(content: bytes) -> bytes:
    return content[:-9] + bytes((content[-9] ^ 1,)) + content[-8:]


def _is_of_another_kind(content: bytes) -> bytes:
    return content[:8] + bytes(32) + content[40:]


def _is_empty(content: bytes) -> bytes:
    return content[:0]


@pytest.mark.parametrize("spoil", [_is_cut, _is_flipped, _is_of_another_kind, _is_empty])
def test_kept_rules_that_are_not_whole_are_compiled_anew(
    spoil: Callable[[bytes], bytes], tmp_path: Path
) -> None:
    kept = tmp_path / "rules.compiled"
    compiled.rules(_sources(), kept=os.fspath(kept))
    whole = kept.read_bytes()
    kept.write_bytes(spoil(whole))
    assert _engine(compiled.rules(_sources(), kept=os.fspath(kept))).scan(eicar())
    assert kept.read_bytes()[:40] == whole[:40]
    assert len(kept.read_bytes()) > len(whole) // 2


def test_one_changed_letter_in_a_rule_is_another_set(tmp_path: Path) -> None:
    kept = os.fspath(tmp_path / "rules.compiled")
    source = 'rule a { strings: $a = "alice" condition: $a }'
    assert _engine(compiled.rules([("x", source)], kept=kept)).scan(b"alice")
    other = _engine(compiled.rules([("x", source.replace("alice", "alicf"))], kept=kept))
    assert not other.scan(b"alice")
    assert other.scan(b"alicf")
    assert not _engine(compiled.rules([("x", "")], kept=kept)).scan(b"alicf")
    # The same text, cut elsewhere between name and source.
    assert _engine(compiled.rules([("x/", source)], kept=kept)).scan(b"alice")


def test_asvs_15_2_5_kept_rules_that_others_may_write_or_have_linked_are_not_believed(
    tmp_path: Path,
) -> None:
    kept = tmp_path / "rules.compiled"
    harmless = [("x", "rule a { condition: false }")]
    compiled.rules(harmless, kept=os.fspath(kept))
    # What a stranger would plant: rules that find nothing, under the key of those that do.
    planted = kept.read_bytes()
    compiled.rules(_sources(), kept=os.fspath(kept))
    kept.write_bytes(kept.read_bytes()[:40] + planted[40:])
    assert _engine(compiled.rules(_sources(), kept=os.fspath(kept))).scan(eicar()) == []
    kept.chmod(0o622)
    assert _engine(compiled.rules(_sources(), kept=os.fspath(kept))).scan(eicar())

    kept.write_bytes(kept.read_bytes()[:40] + planted[40:])
    kept.rename(tmp_path / "elsewhere")
    kept.symlink_to(tmp_path / "elsewhere")
    assert _engine(compiled.rules(_sources(), kept=os.fspath(kept))).scan(eicar())
    assert not kept.is_symlink()


def test_a_state_folder_that_cannot_be_written_only_costs_time(tmp_path: Path) -> None:
    nowhere = os.fspath(tmp_path / "missing" / "rules.compiled")
    assert _engine(compiled.rules(_sources(), kept=nowhere)).scan(eicar())
