"""The process in which files are opened up: it compiles the rules, is asked for one file after
another, and may die.

Started by `engines.pool` with one end of a channel and its settings as one line of JSON. It has low
priority, bounded memory, may write no file, and where the agent is root it gives up every right but
reading the descriptors it is handed. Whatever goes wrong in it ends this process, never the agent.
"""

import codecs
import functools
import importlib
import io
import os
import signal
import sys
from collections.abc import Iterator
from hashlib import sha256
from pathlib import Path
from types import TracebackType
from typing import Any, Protocol

import psutil

from doorward_agent import archives, definitions, documents
from doorward_agent.config import AgentConfig
from doorward_agent.definitions.lookup import Known
from doorward_agent.engines import (
    Engine,
    EngineFailed,
    Hit,
    Limit,
    clamav,
    compiled,
    confinement,
    yara,
)
from doorward_agent.engines.channel import Answer, Channel, worker_end

UNPRIVILEGED = 65534
"""The user and group "nobody" of every Linux distribution and of macOS's unsigned view; no name
lookup is needed."""

EXIT_BROKEN = 70
"""EX_SOFTWARE of sysexits.h: the engine's state is unknown, a new process must take over."""

_HEAD = 512
_TAIL = 22 + 65535


class Examiner:
    """Everything that looks at one file: the hash lists, our engine, the unpackers, and clamd where
    it runs."""

    def __init__(
        self, config: AgentConfig, *, ours: Engine, others: tuple[Engine, ...], hashes: Known
    ) -> None:
        self._config = config
        self._ours = ours
        self._others = others
        self._hashes = hashes

    def examine(self, descriptor: int) -> Answer:
        """Return everything found in an open file, and every reason why it was not seen whole."""
        before = os.fstat(descriptor)
        hits: list[tuple[str, Hit]] = []
        limits: list[Limit] = []
        digest = sha256()
        size = before.st_size
        whole: bytes | None = None
        if size <= self._config.window_bytes:
            os.lseek(descriptor, 0, os.SEEK_SET)
            whole = _read(descriptor, size)
            digest.update(whole)
            head, tail = whole[:_HEAD], whole[-_TAIL:]
        else:
            head, tail = _digest(descriptor, digest)
        try:
            found = (
                self._ours.scan(whole)
                if whole is not None
                else self._ours.scan_file(descriptor, size)
            )
            hits.extend(("", hit) for hit in found)
        except EngineFailed as failed:
            limits.append(Limit(f"engine-{failed.how}", str(failed)))
        known = self._hashes.find(
            digest.digest(), size, lambda: _pieces(descriptor) if whole is None else (whole,)
        )
        if known is not None:
            hits.append(("", _known(*known)))
        kind = archives.kind_of(head) or ("zip" if archives.has_hidden_zip(tail, size) else None)
        if kind is not None and not self._config.open_archives:
            limits.append(Limit("archive-left-out"))
        elif kind is not None:
            self._look_inside(descriptor, size, whole, kind, hits, limits)
        if self._others and worth_asking_others(head, kind):
            for engine in self._others:
                try:
                    hits.extend(("", hit) for hit in engine.scan_file(descriptor, size))
                except EngineFailed as failed:
                    limits.append(Limit(f"{engine.name}-{failed.how}", str(failed)))
        after = os.fstat(descriptor)
        changed = (before.st_size, before.st_mtime_ns, before.st_ctime_ns) != (
            after.st_size,
            after.st_mtime_ns,
            after.st_ctime_ns,
        )
        return Answer(
            sha256=digest.hexdigest(),
            size=size,
            hits=tuple(hits),
            limits=tuple(limits),
            changed=changed,
        )

    def _look_inside(
        self,
        descriptor: int,
        size: int,
        whole: bytes | None,
        kind: str,
        hits: list[tuple[str, Hit]],
        limits: list[Limit],
    ) -> None:
        budget = archives.Budget(self._config, packed=max(size, 1))
        with _opened(descriptor, whole) as content:
            for member in archives.members(content, kind, budget):
                try:
                    hits.extend((member.name, hit) for hit in self._ours.scan(member.content))
                except EngineFailed as failed:
                    budget.note(f"engine-{failed.how}")
                # Behind the rules: of two equally grave findings the first is told, and a rule says
                # more.
                inside = (member.content,)
                known = self._hashes.find(
                    sha256(member.content).digest(),
                    len(member.content),
                    functools.partial(iter, inside),
                )
                if known is not None:
                    hits.append((member.name, _known(*known)))
        limits.extend(Limit(reason) for reason in budget.reasons)


class _opened:  # noqa: N801 (read as a context, like contextlib's)
    """A file object over the content; the descriptor itself stays open."""

    def __init__(self, descriptor: int, whole: bytes | None) -> None:
        self._file: archives.Content
        if whole is not None:
            self._file = io.BytesIO(whole)
            self._close = None
        else:
            os.lseek(descriptor, 0, os.SEEK_SET)
            reader = open(descriptor, "rb", closefd=False)  # noqa: SIM115 (closed in __exit__)
            self._file = reader
            self._close = reader.close

    def __enter__(self) -> archives.Content:
        return self._file

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        if self._close is not None:
            self._close()


def worth_asking_others(head: bytes, kind: str | None) -> bool:
    """Tell whether a second engine is asked: programs, archives, documents and mail; not every text
    and picture."""
    if kind not in {None, "html"} or head[:2] in {b"MZ", b"#!", b"L\0"}:
        return True
    return (
        head[:4] in _PROGRAMS
        or head[:2] in _SHORT
        or head.startswith(_OTHER_ARCHIVES)
        # LHA names its method behind two bytes, Symbian its packages in the third word.
        or (head[2:5], head[6:7]) == (b"-lh", b"-")
        or head[8:12] == b"\x19\x04\x00\x10"
    )


_SHORT = frozenset((b"\x60\xea", b"\xc7\x71", b"\x71\xc7"))
"""ARJ, and cpio as the oldest systems wrote it."""
_OTHER_ARCHIVES = (
    b"7z\xbc\xaf\x27\x1c",
    b"SZDD\x88\xf0\x27\x33",
    b"KWAJ\x88\xf0\x27\xd1",
    b"(This file must be converted with BinHex",
    b"07070",
    b"xar!",
    b"x\x9f>\x22",
    b"\x7a\x1a\x20\x10",
)
"""7-Zip, both of Microsoft's for single files, BinHex, cpio, xar, TNEF of Outlook, Symbian's."""
_PROGRAMS = frozenset(
    (
        b"\x7fELF",
        b"\xca\xfe\xba\xbe",
        b"\xcf\xfa\xed\xfe",
        b"\xce\xfa\xed\xfe",
        b"Rar!",
        b"MSCF",
        b"ITSF",
    )
)
"""ELF, Java, Mach-O of 64 and 32 bits; and RAR, CAB and CHM, which only others open."""


def _known(label: str, suspicious: bool) -> Hit:
    kind = "test" if label.startswith("EICAR") else "malware"
    return Hit(
        rule="DW-HASH",
        title=label or "Known malicious file",
        engine="hashes",
        severity="high" if kind == "malware" and not suspicious else "low",
        kind=definitions.SUSPICIOUS if suspicious else kind,
        reason="The file's hash is on the list of known files.",
    )


def _read(descriptor: int, size: int) -> bytes:
    pieces = []
    # One byte more than its size: a file that grew meanwhile shows.
    missing = size + 1
    while missing > 0:
        piece = os.read(descriptor, missing)
        if not piece:
            break
        pieces.append(piece)
        missing -= len(piece)
    return pieces[0] if len(pieces) == 1 else b"".join(pieces)


def _pieces(descriptor: int) -> Iterator[bytes]:
    """Yield a large file from its beginning, piece by piece."""
    os.lseek(descriptor, 0, os.SEEK_SET)
    while piece := os.read(descriptor, 1024 * 1024):
        yield piece


def _digest(descriptor: int, digest: "_Digest") -> tuple[bytes, bytes]:
    """Hash a large file piece by piece; return its beginning and end."""
    head = tail = b""
    for piece in _pieces(descriptor):
        digest.update(piece)
        head = head or piece[:_HEAD]
        tail = (tail + piece)[-_TAIL:]
    return head, tail


class _Digest(Protocol):
    def update(self, data: bytes, /) -> None: ...


def clamd_engines(config: AgentConfig) -> tuple[Engine, ...]:
    """Return clamd as an engine where this scan counts on it.

    One that is gone by now, or has other signatures, gives no verdict: nothing passes for clean by
    the one that was there at the start.
    """
    if not config.clamd_version or os.name != "posix":
        return ()
    found = clamav.find(config)
    if found is None or found.version != config.clamd_version:
        return (clamav.Away(config.clamd_version),)
    return (found,)


def give_up_rights(config: AgentConfig, *, by_descriptor: bool = True) -> tuple[str, ...]:
    """Keep what a worker needs: low priority, bounded memory, no files to write, and no root.

    Where files come by descriptor, no other file's name means anything any more. Returns what could
    be given up: `user`, `network`, `files`.
    """
    if config.low_priority:
        _step_back()
    if os.name != "posix":
        return ()
    resource = importlib.import_module("resource")
    for limit, value in (
        ("RLIMIT_CORE", 0),
        ("RLIMIT_FSIZE", 0),
        ("RLIMIT_NOFILE", config.worker_descriptors),
        ("RLIMIT_DATA", config.worker_memory_bytes),
    ):
        try:
            resource.setrlimit(getattr(resource, limit), (value, value))
        except (ValueError, OSError):
            # A stricter limit is already set from outside; that one holds.
            continue
    _load_what_is_loaded_late()
    confined = []
    if os.geteuid() == 0:
        if confinement.leave_the_network():
            confined.append("network")
        try:
            os.setgroups([])
            os.setgid(UNPRIVILEGED)
            os.setuid(UNPRIVILEGED)
            confined.append("user")
        except PermissionError:
            # A container's root without the right to change users: less than root already.
            pass
    if by_descriptor and confinement.open_nothing_by_name(confinement.pythons_own_places()):
        confined.append("files")
    return tuple(confined)


# What the readers of archives, documents and mails look up on first use.
_CODECS = ("ascii", "utf-8", "latin-1", "cp437", "cp1252", "utf-16", "utf-16-le", "utf-16-be")
_A_MAIL = (
    b"MIME-Version: 1.0\nContent-Type: multipart/mixed; boundary=b\n\n"
    b"--b\nContent-Transfer-Encoding: base64\n"
    b"Content-Disposition: attachment; filename*=utf-8''a%20b\n\nYQ==\n"
    b"--b\nContent-Transfer-Encoding: quoted-printable\n\n=61\n"
    b"--b\nContent-Transfer-Encoding: x-uuencode\n\nbegin 666 a\n!80``\n`\nend\n--b--\n"
)


def _load_what_is_loaded_late() -> None:
    """Load it now: without rights, a Python that only root may read is out of reach."""
    for name in _CODECS:
        codecs.lookup(name)
    for _ in documents.mail(_A_MAIL, lambda size: None):
        pass


def _step_back() -> None:
    try:
        me = psutil.Process()
        if os.name == "posix":
            os.nice(19)
            if hasattr(me, "ionice"):
                me.ionice(psutil.IOPRIO_CLASS_IDLE)
        else:
            me.nice(getattr(psutil, "IDLE_PRIORITY_CLASS", None))
    except (OSError, psutil.Error):
        # Low priority is a courtesy, not a condition.
        return


def main(arguments: list[str]) -> int:
    """Serve until the other end closes; return the exit status."""
    # Ctrl-C reaches every process of the terminal; what it ends is for the one who asked to decide.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    channel = worker_end(arguments)
    opening = channel.receive()
    if opening is None:
        return 0
    values = opening[0]
    config = AgentConfig(state_dir=Path(os.devnull), **values["limits"])
    try:
        found = definitions.current(values["definitions"])
        rules = compiled.rules(yara.read_sources(found.rule_files), kept=values["compiled"])
        hashes = Known(found)
        ours = yara.YaraEngine(
            rules,
            version=found.version,
            timeout=config.engine_timeout,
            window_bytes=config.window_bytes,
            window_overlap_bytes=config.window_overlap_bytes,
        )
        # Whatever the engine sets up on first use, it sets up while it still may.
        ours.scan(b"warm")
        examiner = Examiner(config, ours=ours, others=clamd_engines(config), hashes=hashes)
        confined = give_up_rights(config, by_descriptor=arguments[:1] == ["descriptors"])
    except Exception as error:  # noqa: BLE001 (told to the agent, which decides)
        channel.send({"failed": f"{type(error).__name__}: {error}"[:2000]})
        return EXIT_BROKEN
    channel.send({"ready": True, "confined": confined})
    return _serve(channel, examiner)


def _serve(channel: Channel, examiner: Examiner) -> int:
    while True:
        asked = channel.receive()
        if asked is None:
            return 0
        message, descriptors = asked
        handed: list[int | str] = [*descriptors, *message.get("paths", ())]
        for place, given in enumerate(handed):
            # One answer a file, each before the next is begun: so it is known at which file a
            # worker hangs or dies.
            answer = _answered(examiner, given)
            channel.send({"job": message["jobs"] + place, **answer})
            if "broken" in answer:
                return EXIT_BROKEN


def _answered(examiner: Examiner, given: int | str) -> dict[str, Any]:
    """Look at a file by its descriptor, which is closed then, or by its path."""
    descriptor = -1
    try:
        if isinstance(given, str):
            descriptor = os.open(given, os.O_RDONLY | getattr(os, "O_BINARY", 0))
        else:
            descriptor = given
        return examiner.examine(descriptor).encoded()
    except OSError as error:
        return {"error": "unreadable", "detail": str(error.strerror)}
    except BaseException as error:  # noqa: BLE001 (a Rust panic is no Exception)
        detail = f"{type(error).__name__}: {error}"[:500]
        return {"error": "engine-failed", "detail": detail, "broken": True}
    finally:
        if descriptor >= 0:
            os.close(descriptor)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
