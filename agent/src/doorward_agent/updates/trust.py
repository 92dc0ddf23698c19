"""What the server's definitions are believed by: The Update Framework, from a pinned root on.

The library refuses what is old, expired, mixed or not signed enough; here its refusals get our
names, its files come through our link, and its clock is the one that the server was found to have.
"""

from __future__ import annotations

import datetime as dt
import hashlib
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Final

from tuf.api import exceptions
from tuf.api.metadata import Root, TargetFile, Timestamp
from tuf.ngclient import FetcherInterface, Updater, UpdaterConfig

from doorward_agent import link
from doorward_agent.link import Files
from doorward_protocol.messages import DefinitionsRoot

MAX_METADATA_BYTES: Final = 512 * 1024
"""One file of metadata. Ours have a few kilobytes."""
MAX_TIMESTAMP_BYTES: Final = 8 * 1024


class Refused(Exception):
    """New definitions were not taken; `code` says why in a word (doorward_protocol.definitions).

    `number` is the set, where it came so far that this is known.
    """

    def __init__(self, code: str, message: str, *, number: int = 0) -> None:
        super().__init__(message)
        self.code, self.number = code, number


class _Fetcher(FetcherInterface):
    """The library's way to the network: ours."""

    def __init__(self, files: Files) -> None:
        self.files = files
        self.problem: link.LinkProblem | None = None

    def _fetch(self, url: str) -> Iterator[bytes]:
        try:
            yield from self.files.fetch(url.removeprefix(_BASE))
        except link.NotServed as problem:
            raise exceptions.DownloadHTTPError(str(problem), problem.status) from problem
        except link.LinkProblem as problem:
            self.problem = problem
            raise exceptions.DownloadError(str(problem)) from problem


_BASE: Final = "definitions:///"


class _Updater(Updater):
    """The library's client, by the server's clock, that remembers which file it was at."""

    def __init__(self, folder: Path, fetcher: _Fetcher, root: bytes, now: dt.datetime) -> None:
        self.role = Root.type
        super().__init__(
            metadata_dir=os.fspath(folder),
            metadata_base_url=_BASE,
            fetcher=fetcher,
            config=UpdaterConfig(
                max_root_rotations=64,
                root_max_length=MAX_METADATA_BYTES,
                timestamp_max_length=MAX_TIMESTAMP_BYTES,
                snapshot_max_length=MAX_METADATA_BYTES,
                targets_max_length=MAX_METADATA_BYTES,
            ),
            bootstrap=root,
        )
        # This computer's clock may be wrong by years; the library knows no other way to say so.
        self._trusted_set.reference_time = now

    def _download_metadata(self, rolename: str, length: int, version: int | None = None) -> bytes:
        self.role = rolename
        return super()._download_metadata(rolename, length, version)

    def targets(self) -> dict[str, TargetFile]:
        """Everything that is signed, by its name."""
        return self._trusted_set.targets.targets


class Trust:
    """The signed state of the server, as this device believes it."""

    def __init__(
        self, folder: Path, files: Files, pin: DefinitionsRoot, *, now: dt.datetime
    ) -> None:
        """Begin with the pinned root. Raises Refused, link.LinkProblem."""
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        self.files = files
        self._fetcher = _Fetcher(files)
        root = _pinned_root(folder, files, pin)
        try:
            self._updater = _Updater(folder, self._fetcher, root, now)
        except exceptions.RepositoryError as problem:
            raise Refused("wrong-root", f"the pinned root is unsound: {problem}") from problem

    def refresh(self) -> dict[str, TargetFile]:
        """Learn what is signed now; answer it by name. Raises Refused, link.LinkProblem."""
        try:
            self._updater.refresh()
        except exceptions.DownloadLengthMismatchError as problem:
            raise Refused("too-long", f"{self._updater.role}.json is longer than it may be") from (
                problem
            )
        except exceptions.DownloadHTTPError as problem:
            raise Refused("unreadable", str(problem)) from problem
        except exceptions.DownloadError as problem:
            raise self._fetcher.problem or link.ServerUnreachable(str(problem)) from problem
        except exceptions.RepositoryError as problem:
            raise self._named(problem) from problem
        return self._updater.targets()

    def _named(self, problem: exceptions.RepositoryError) -> Refused:
        role = self._updater.role
        if isinstance(problem, exceptions.ExpiredMetadataError):
            return Refused(
                "expired",
                f"{role} was signed too long ago: newer definitions may be held back",
            )
        if isinstance(problem, exceptions.BadVersionNumberError):
            # A snapshot or targets that is not the one named by its signed neighbor is a mixture;
            # a lower number than one seen before is a step back.
            said = str(problem)
            back = role in {Root.type, Timestamp.type} or "targets.json version" in said
            code = "rollback" if back else "mixed"
            return Refused(code, f"{role}: {said}")
        if isinstance(problem, exceptions.UnsignedMetadataError):
            return Refused("wrong-key", f"{role} is not signed by the keys that may sign it")
        if isinstance(problem, exceptions.LengthOrHashMismatchError):
            return Refused("tampered", f"{role} is not the one that was signed")
        return Refused("unreadable", f"{role}: {problem}")


def _pinned_root(folder: Path, files: Files, pin: DefinitionsRoot) -> bytes:
    held = folder / "root_history" / f"{pin.version}.root.json"
    try:
        found = held.read_bytes()
    except OSError:
        found = b""
    if hashlib.sha256(found).hexdigest() == pin.sha256:
        return found
    fetched = bytearray()
    try:
        for piece in files.fetch(f"{pin.version}.root.json"):
            fetched += piece
            if len(fetched) > MAX_METADATA_BYTES:
                raise Refused("too-long", "the root is longer than it may be")
    except link.NotServed as problem:
        raise Refused("wrong-root", f"the root to begin with is not there: {problem}") from problem
    if hashlib.sha256(fetched).hexdigest() != pin.sha256:
        raise Refused("wrong-root", "the root is not the one this device was told to begin with")
    return bytes(fetched)
