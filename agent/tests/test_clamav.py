"""clamd as a second engine: its own protocol, spoken by a small stand-in on a socket."""

import array
import dataclasses
import datetime
import os
import shutil
import socket
import subprocess
import tempfile
import threading
import time
import zipfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from doorward_agent import archives, definitions, scan
from doorward_agent.config import AgentConfig
from doorward_agent.definitions import build
from doorward_agent.definitions.build import eicar
from doorward_agent.engines import EngineFailed, EngineTimeout, clamav, worker

SIGNATURE = b"only clamd knows this"


class StandIn:
    """Answers as clamd(8) does: VERSION, FILDES and INSTREAM, null-terminated."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.version = "ClamAV 1.4.2/27500/Sun Nov 22 09:00:00 2026"
        self.asked: list[str] = []
        self.takes_descriptors = True
        self.silent = False
        self.reply: str | None = None
        self._listening = socket.socket(socket.AF_UNIX)
        # At most 107 bytes: bind by the short name.
        here = Path.cwd()
        os.chdir(path.parent)
        try:
            self._listening.bind(path.name)
        finally:
            os.chdir(here)
        path.chmod(0o666)
        self._listening.listen()
        self._thread = threading.Thread(target=self._serve, daemon=True)
        self._thread.start()

    def _serve(self) -> None:
        while True:
            try:
                connection, _ = self._listening.accept()
            except OSError:
                return
            with connection:
                try:
                    self._converse(connection)
                except OSError:
                    continue

    def _converse(self, connection: socket.socket) -> None:
        held = b""
        descriptors = array.array("i")
        while b"\0" not in held:
            piece, ancillary, _, _ = connection.recvmsg(4096, socket.CMSG_SPACE(4))
            for _, kind, data in ancillary:
                assert kind == socket.SCM_RIGHTS
                descriptors.frombytes(data)
            if not piece:
                return
            held += piece
        command, _, rest = held.partition(b"\0")
        self.asked.append(command.decode())
        if self.silent:
            while connection.recv(4096):
                continue
            return
        if command == b"zVERSION":
            connection.sendall(self.version.encode() + b"\0")
        elif command == b"zFILDES" and not self.takes_descriptors:
            connection.sendall(b"UNKNOWN COMMAND\0")
        elif command == b"zFILDES":
            while not descriptors:
                _, ancillary, _, _ = connection.recvmsg(1, socket.CMSG_SPACE(4))
                for _, _, data in ancillary:
                    descriptors.frombytes(data)
            with os.fdopen(descriptors[0], "rb") as given:
                given.seek(0)
                self._judge(connection, "fd[10]", given.read())
        elif command == b"zINSTREAM":
            content = b""
            while True:
                while len(rest) < 4:
                    rest += connection.recv(4096)
                length, rest = int.from_bytes(rest[:4], "big"), rest[4:]
                if length == 0:
                    break
                while len(rest) < length:
                    rest += connection.recv(65536)
                content, rest = content + rest[:length], rest[length:]
            self._judge(connection, "stream", content)

    def _judge(self, connection: socket.socket, what: str, content: bytes) -> None:
        told = "OK"
        if SIGNATURE in content:
            told = "Win.Test.Charlie-1 FOUND"
        elif eicar() in content:
            told = "Win.Test.EICAR_HDB-1 FOUND"
        connection.sendall((self.reply or f"{what}: {told}").encode() + b"\0")

    def close(self) -> None:
        self._listening.shutdown(socket.SHUT_RDWR)
        self._listening.close()
        self._thread.join()


@pytest.fixture
def clamd() -> Iterator[StandIn]:
    """A clamd in a short folder that others may enter but not write to."""
    with tempfile.TemporaryDirectory(prefix="dw") as folder:
        Path(folder).chmod(0o755)
        stand_in = StandIn(Path(folder) / "clamd.ctl")
        yield stand_in
        stand_in.close()


@pytest.fixture
def with_clamd(config: AgentConfig, clamd: StandIn) -> AgentConfig:
    """An agent that finds it."""
    return dataclasses.replace(
        config, clamd=True, clamd_sockets=(os.fspath(clamd.path),), clamd_timeout=2.0
    )


@pytest.fixture
def engine(with_clamd: AgentConfig) -> clamav.ClamdEngine:
    """The engine over it."""
    found = clamav.find(with_clamd)
    assert found is not None
    return found


@pytest.mark.parametrize("takes_descriptors", [True, False])
def test_what_clamd_knows_is_found_in_an_open_file(
    takes_descriptors: bool, clamd: StandIn, engine: clamav.ClamdEngine, tmp_path: Path
) -> None:
    clamd.takes_descriptors = takes_descriptors
    for content, found in ((b"x" * 300_000 + SIGNATURE, "clamav:Win.Test.Charlie-1"), (b"x", None)):
        path = tmp_path / "file"
        path.write_bytes(content)
        with path.open("rb") as given:
            given.read()
            hits = engine.scan_file(given.fileno(), len(content))
        assert [hit.rule for hit in hits] == ([found] if found else [])
    # Asked once whether it takes descriptors, not for each file.
    refusals = [command for command in clamd.asked if command == "zFILDES"]
    assert len(refusals) == (2 if takes_descriptors else 1)


def test_content_in_memory_is_streamed(engine: clamav.ClamdEngine) -> None:
    assert engine.scan(b"x" * 700_000) == []
    (hit,) = engine.scan(b"x" * 700_000 + SIGNATURE)
    assert (hit.engine, hit.severity, hit.kind) == ("clamav", "high", "malware")
    (test,) = engine.scan(eicar())
    assert (test.severity, test.kind) == ("low", "test")


@pytest.mark.parametrize(
    "reply",
    [
        "fd[10]: Can't open file ERROR",
        "INSTREAM size limit exceeded. ERROR",
        "fd[10]: Heuristics.Limits.Exceeded.MaxFileSize FOUND",
        "",
        "nonsense",
        "\x1b[31m: OK?",
    ],
)
def test_whatever_is_no_verdict_is_not_clean(
    reply: str, clamd: StandIn, engine: clamav.ClamdEngine
) -> None:
    clamd.reply = reply or "\0"
    with pytest.raises(EngineFailed):
        engine.scan(b"x")


def test_a_name_with_colons_is_read_whole(clamd: StandIn, engine: clamav.ClamdEngine) -> None:
    clamd.reply = "stream: PUA.Win.Tool-1 FOUND"
    (hit,) = engine.scan(b"x")
    assert (hit.title, hit.severity, hit.kind) == ("PUA.Win.Tool-1", "medium", "unwanted")


def test_a_clamd_that_does_not_answer_times_out(clamd: StandIn, with_clamd: AgentConfig) -> None:
    engine = clamav.ClamdEngine(os.fspath(clamd.path), timeout=0.2, stream_bytes=1000)
    clamd.silent = True
    with pytest.raises(EngineTimeout):
        engine.scan(b"x")


def test_what_is_too_large_to_stream_is_told(clamd: StandIn) -> None:
    engine = clamav.ClamdEngine(os.fspath(clamd.path), timeout=2.0, stream_bytes=1000)
    with pytest.raises(EngineFailed, match="larger"):
        engine.scan(b"x" * 1001)


def test_a_scan_asks_clamd_too_and_only_about_what_it_is_for(
    home: Path, with_clamd: AgentConfig, clamd: StandIn
) -> None:
    (home / "program").write_bytes(b"MZ" + bytes(100) + SIGNATURE)
    (home / "letter").write_bytes(b"Dear Bob, " + SIGNATURE)
    (home / "photo").write_bytes(b"\xff\xd8\xff\xe0" + SIGNATURE)
    with zipfile.ZipFile(home / "archive.zip", "w") as archive:
        archive.writestr("member", SIGNATURE)
    (home / "mail").write_bytes(b"Received: from charlie\n\n" + SIGNATURE)

    run = scan.run([home], with_clamd)
    found = {Path(one.path).name: one for one in run}

    assert set(found) == {"program", "archive.zip", "mail"}
    assert {one.engine for one in found.values()} == {"clamav"}
    assert clamd.asked.count("zFILDES") == 3
    assert run.summary.complete


def test_a_new_version_of_clamds_signatures_forgets_what_was_clean(
    home: Path, with_clamd: AgentConfig, clamd: StandIn
) -> None:
    (home / "program").write_bytes(b"MZ" + bytes(100))
    list(scan.run([home], with_clamd))
    again = scan.run([home], with_clamd)
    list(again)
    assert again.summary.cached == 1

    clamd.version = clamd.version.replace("27500", "27501")
    after = scan.run([home], with_clamd)
    list(after)
    assert (after.summary.cached, after.summary.scanned) == (0, 1)


def test_a_clamd_that_fails_is_told_and_our_engine_still_sees_the_file(
    home: Path, with_clamd: AgentConfig, clamd: StandIn
) -> None:
    (home / "a").write_bytes(b"MZ" + bytes(100))
    clamd.reply = "fd[10]: out of memory ERROR"
    run = scan.run([home], with_clamd)
    assert list(run) == []
    assert run.summary.limited == {"clamav-failed": 1}
    assert run.summary.notes[0].detail == "clamd says: fd[10]: out of memory ERROR"
    again = scan.run([home], with_clamd)
    list(again)
    assert again.summary.cached == 0


def test_a_clamd_that_is_there_and_silent_is_said_in_the_report(
    home: Path, with_clamd: AgentConfig, clamd: StandIn
) -> None:
    (home / "a").write_bytes(b"MZ" + bytes(100))
    with_clamd = dataclasses.replace(with_clamd, clamd_timeout=0.2)
    clamd.silent = True
    run = scan.run([home], with_clamd)
    assert list(run) == []
    assert run.summary.limited == {"clamav-away": 1}
    assert run.summary.notes[0].path == os.fspath(clamd.path)
    assert not run.summary.complete
    # What was seen without it is looked at again as soon as it answers.
    clamd.silent = False
    again = scan.run([home], with_clamd)
    list(again)
    assert (again.summary.cached, again.summary.complete) == (0, True)


@pytest.mark.parametrize("how", ["gone", "silent", "other signatures"])
def test_a_clamd_lost_after_the_start_leaves_nothing_clean_by_its_name(
    how: str, home: Path, with_clamd: AgentConfig, clamd: StandIn
) -> None:
    with_clamd = dataclasses.replace(with_clamd, clamd_timeout=0.2)
    (home / "a").write_bytes(b"MZ" + bytes(100))
    (home / "letter").write_text("Dear Bob")
    run = scan.run([home], with_clamd)
    before = clamd.version
    if how == "gone":
        clamd.path.unlink()
    elif how == "silent":
        clamd.silent = True
    else:
        clamd.version = before.replace("27500", "27501")
    assert list(run) == []
    assert run.summary.limited == {"clamav-failed": 1}
    clamd.silent, clamd.version = False, before
    if how == "gone":
        return
    again = scan.run([home], with_clamd)
    list(again)
    # The letter was never for clamd; the program is looked at anew, by both.
    assert (again.summary.cached, again.summary.scanned) == (1, 1)
    assert again.summary.complete


def test_of_two_engines_that_both_hit_the_graver_is_told_and_the_other_named(
    home: Path, with_clamd: AgentConfig, clamd: StandIn
) -> None:
    (home / "both.com").write_bytes(eicar())
    (home / "clamd only").write_bytes(b"MZ" + SIGNATURE)
    clamd.reply = None
    run = scan.run([home], with_clamd)
    found = {Path(one.path).name: one for one in run}
    assert found["both.com"].engine == "yara"
    assert found["clamd only"].engine == "clamav"
    clamd.reply = "fd[10]: Win.Trojan.Charlie-2 FOUND"
    with zipfile.ZipFile(home / "differ.zip", "w") as archive:
        archive.writestr("member.com", eicar())
    (differ,) = scan.run([home / "differ.zip"], with_clamd)
    assert (differ.engine, differ.severity) == ("clamav", "high")
    assert "DW-TEST-0001" in differ.also


def test_without_a_clamd_nothing_is_asked(config: AgentConfig, tmp_path: Path) -> None:
    nowhere = dataclasses.replace(config, clamd=True, clamd_sockets=(os.fspath(tmp_path / "no"),))
    assert clamav.find(nowhere) is None
    found, silent = scan.with_second_engine(nowhere)
    assert (found.clamd_version, silent) == ("", "")
    assert "clamd" not in scan.version(found, definitions.current())
    ordinary = tmp_path / "file"
    ordinary.write_text("x")
    assert (
        clamav.socket_path(dataclasses.replace(nowhere, clamd_sockets=(os.fspath(ordinary),)))
        is None
    )


@pytest.mark.skipif(os.geteuid() != 0, reason="needs a file of somebody else")
def test_a_socket_left_by_a_stranger_in_an_open_folder_is_not_asked(
    with_clamd: AgentConfig, clamd: StandIn
) -> None:
    clamd.path.parent.chmod(0o1777)
    assert clamav.socket_path(with_clamd) is not None
    os.chown(clamd.path, 65534, 65534)
    assert clamav.socket_path(with_clamd) is None


@pytest.mark.parametrize(
    ("head", "asked"),
    [
        (b"MZ\x90", True), (b"\x7fELF", True), (b"#!/bin/sh", True), (b"%PDF-1.7", True),
        (b"\xd0\xcf\x11\xe0\xa1\xb1\x1a\xe1", True), (b"7z\xbc\xaf\x27\x1c", True), (b"Rar!", True),
        (b"\x60\xea\x29\x00", True), (b"SZDD\x88\xf0\x27\x33A", True), (b"-lh5-", False),
        (b"!\x0d-lh5-", True), (b"(This file must be converted with BinHex 4.0)", True),
        (b"070701000", True), (bytes(8) + b"\x19\x04\x00\x10", True), (bytes(12), False),
        (b"From: alice\nMIME-Version: 1.0\n", True), (b"Delivered-To: bob\n", True),
        (b"\x89PNG", False), (b"plain text", False), (b"", False), (b"import os", False),
        (b"<html><body>", False),
    ],
)  # fmt: skip
def test_a_second_engine_is_for_programs_archives_documents_and_mail(
    head: bytes, asked: bool
) -> None:
    assert worker.worth_asking_others(head, archives.kind_of(head)) is asked


TEST_FILES = Path("/usr/share/clamav-testfiles")
PATTERN = "b02940300466ac79f9ba3100780dad50ff66700e1fbe3100e9e5ffb409cd21b44ccd21"
"""A part of the program that is in each of them, packed in some way."""


@pytest.fixture
def real_clamd() -> Iterator[Path]:
    """Debian's own clamd with one signature; the path of its socket."""
    program = shutil.which("clamd", path=f"{os.environ.get('PATH', '')}:/usr/sbin")
    if program is None or not TEST_FILES.is_dir():
        pytest.skip("apt install clamav-daemon clamav-testfiles")
    with tempfile.TemporaryDirectory(prefix="dw") as folder:
        home = Path(folder)
        home.chmod(0o755)
        (home / "db").mkdir()
        (home / "db" / "test.ndb").write_text(f"Test:0:*:{PATTERN}\n")
        (home / "conf").write_text(
            f"LocalSocket {home}/clamd.ctl\nDatabaseDirectory {home}/db\nForeground yes\n"
        )
        process = subprocess.Popen(  # noqa: S603 - the system's own program
            [program, "-c", os.fspath(home / "conf")],
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )
        end = time.monotonic() + 60
        while not (home / "clamd.ctl").exists() and process.poll() is None:
            assert time.monotonic() < end
            time.sleep(0.02)  # another program's start: it tells nobody when it is done
        yield home / "clamd.ctl"
        process.terminate()
        process.wait()


def test_beside_a_real_clamd_every_way_of_packing_is_seen_through(
    real_clamd: Path, config: AgentConfig, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = tmp_path / "definitions"
    folder.mkdir()
    spaced = " ".join(PATTERN[at : at + 2] for at in range(0, len(PATTERN), 2))
    (folder / "test.yar").write_text(f"rule test {{ strings: $a = {{ {spaced} }} condition: $a }}")
    build.write(os.fspath(folder), today=datetime.date(2026, 11, 22))
    ours = definitions.current(os.fspath(folder))
    monkeypatch.setattr(definitions, "in_force", lambda state: ours)
    files = {path.name for path in TEST_FILES.iterdir()}

    alone = {Path(one.path).name for one in scan.run([TEST_FILES], config)}
    assert len(alone) >= 22

    both = dataclasses.replace(config, clamd=True, clamd_sockets=(os.fspath(real_clamd),))
    run = scan.run([TEST_FILES], both)
    assert {Path(one.path).name for one in run} == files
