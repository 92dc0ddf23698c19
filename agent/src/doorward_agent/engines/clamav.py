# Why not pathlib: sockets and descriptors.
# ruff: noqa: PTH116, PTH120
"""clamd, asked over its socket where it runs: a second pair of eyes for programs, archives,
documents and mail.

The protocol is clamd(8)'s own: ``zVERSION``, ``zFILDES`` with the open file as ancillary data,
``zINSTREAM`` with pieces prefixed by their length. clamd unpacks by itself, so members of archives
are not sent one by one. It is never started, configured or updated by the agent.
"""

import array
import os
import socket
import stat

from doorward_agent.config import AgentConfig
from doorward_agent.engines import EngineFailed, EngineTimeout, Hit

_PIECE = 256 * 1024
_LONGEST_REPLY = 4096


class ClamdEngine:
    """A clamd at one socket. Each question is a connection of its own, so a restarted clamd is
    found again."""

    name = "clamav"
    unpacks = True

    def __init__(self, path: str, *, timeout: float, stream_bytes: int) -> None:
        self._path = path
        self._timeout = timeout
        self._stream_bytes = stream_bytes
        self._takes_descriptors = True
        self.version = self._asked(b"zVERSION\0")

    def scan(self, content: bytes) -> list[Hit]:
        """Look at content in memory. Raises EngineTimeout, EngineFailed."""
        if len(content) > self._stream_bytes:
            raise EngineFailed("larger than clamd takes")
        with self._connected() as connection:
            try:
                connection.sendall(b"zINSTREAM\0")
                for start in range(0, len(content), _PIECE):
                    piece = content[start : start + _PIECE]
                    connection.sendall(len(piece).to_bytes(4, "big") + piece)
                connection.sendall(bytes(4))
            except TimeoutError as error:
                raise EngineTimeout("clamd does not read") from error
            except (BrokenPipeError, ConnectionResetError):
                # It answers before it has read everything, and hangs up: the answer says why.
                return _verdict(_reply(connection))
            except OSError as error:
                raise EngineFailed(f"clamd closed the connection: {error.strerror}") from error
            return _verdict(_reply(connection))

    def scan_file(self, descriptor: int, size: int) -> list[Hit]:
        """Look at an open file: handed over, or streamed where clamd takes no descriptors."""
        if self._takes_descriptors:
            with self._connected() as connection:
                try:
                    connection.sendall(b"zFILDES\0")
                    # clamd(8): the descriptor travels with one byte of its own.
                    connection.sendmsg(
                        [b"\0"],
                        [(socket.SOL_SOCKET, socket.SCM_RIGHTS, array.array("i", [descriptor]))],
                    )
                except OSError as error:
                    # A clamd that does not know the command has answered and hung up already.
                    if not isinstance(error, (BrokenPipeError, ConnectionResetError)):
                        raise EngineFailed(f"clamd hung up: {error.strerror}") from error
                reply = _reply(connection)
            if "UNKNOWN COMMAND" not in reply:
                return _verdict(reply)
            self._takes_descriptors = False
        if size > self._stream_bytes:
            raise EngineFailed("larger than clamd takes")
        os.lseek(descriptor, 0, os.SEEK_SET)
        return self.scan(os.read(descriptor, size))

    def _asked(self, command: bytes) -> str:
        with self._connected() as connection:
            try:
                connection.sendall(command)
            except OSError as error:
                raise EngineFailed(f"clamd closed the connection: {error.strerror}") from error
            return _reply(connection)

    def _connected(self) -> socket.socket:
        connection = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        connection.settimeout(self._timeout)
        try:
            connection.connect(self._path)
        except OSError as error:
            connection.close()
            raise EngineFailed(f"clamd does not answer: {error.strerror}") from error
        return connection


class Away:
    """A clamd that was there when the scan began, and is not any more: it has no verdict."""

    name = ClamdEngine.name
    unpacks = True

    def __init__(self, version: str) -> None:
        self.version = version

    def scan(self, content: bytes) -> list[Hit]:
        """Raise EngineFailed."""
        raise EngineFailed("clamd is gone, or has other signatures than at the start")

    def scan_file(self, descriptor: int, size: int) -> list[Hit]:
        """Raise EngineFailed."""
        return self.scan(b"")


def _reply(connection: socket.socket) -> str:
    held = b""
    while b"\0" not in held and len(held) < _LONGEST_REPLY:
        try:
            piece = connection.recv(_LONGEST_REPLY)
        except TimeoutError as error:
            raise EngineTimeout("clamd needed too long") from error
        except OSError as error:
            raise EngineFailed(f"clamd closed the connection: {error.strerror}") from error
        if not piece:
            break
        held += piece
    return held.split(b"\0")[0].decode("utf-8", "replace").strip()


def _verdict(reply: str) -> list[Hit]:
    """Read ``fd[10]: Eicar-Signature FOUND``, ``stream: OK`` or an error. Raises EngineFailed."""
    _where, _, told = reply.rpartition(": ") if reply.endswith(("FOUND", "OK")) else ("", "", reply)
    if told == "OK":
        return []
    if not told.endswith(" FOUND"):
        raise EngineFailed(f"clamd says: {reply[:200] or 'nothing'}")
    name = told.removesuffix(" FOUND")
    # clamd names what its own limits kept it from seeing as if it were a finding.
    if name.startswith("Heuristics.Limits.Exceeded"):
        raise EngineFailed("clamd reached its own limit")
    test = "eicar" in name.lower()
    unwanted = name.startswith("PUA.")
    return [
        Hit(
            rule=f"clamav:{name}"[:200],
            title=name[:200],
            engine=ClamdEngine.name,
            severity="low" if test else ("medium" if unwanted else "high"),
            kind="test" if test else ("unwanted" if unwanted else "malware"),
            reason="ClamAV knows this file.",
        )
    ]


def socket_path(config: AgentConfig) -> str | None:
    """Return the first clamd socket that belongs to somebody who may be asked, or None."""
    for path in config.clamd_sockets:
        try:
            found = os.stat(path)
        except OSError:
            continue
        if not stat.S_ISSOCK(found.st_mode):
            continue
        # In a folder everybody may write to, anybody can leave a socket that calls everything clean
        # or dirty.
        folder = os.stat(os.path.dirname(path))
        if folder.st_mode & 0o002 and found.st_uid not in {0, os.geteuid()}:
            continue
        return path
    return None


def find(config: AgentConfig) -> ClamdEngine | None:
    """Return a clamd that answers, or None."""
    path = socket_path(config)
    if path is None:
        return None
    try:
        return ClamdEngine(
            path, timeout=config.clamd_timeout, stream_bytes=config.clamd_stream_bytes
        )
    except EngineFailed:
        return None
