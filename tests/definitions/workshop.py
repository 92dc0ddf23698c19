"""A server that signs and a device that takes: real code on both sides, a folder in between."""

from __future__ import annotations

import hashlib
import sqlite3
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from pathlib import Path
from typing import cast

import pytest
from securesystemslib.signer import CryptoSigner

from doorward.protection.definitions import importing, keys, repository
from doorward.protection.definitions.importing import Imported
from doorward.protection.models import DefinitionSet
from doorward_agent import database, definitions, link, upkeep
from doorward_agent.config import AgentConfig, prepare
from doorward_agent.updates import updating
from doorward_agent.updates.trust import Refused

PASSPHRASE = b"correct horse battery staple"


def sha256(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()


class Folder:
    """What lies in a folder, as the gateway would serve it; counts what goes over the wire."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.asked: list[str] = []
        self.bytes = 0
        self.breaks_after: int | None = None
        self.change: Callable[[str, bytes], bytes] | None = None
        self.down = False

    def fetch(self, name: str, *, start: int = 0) -> Iterator[bytes]:
        self.asked.append(name if not start else f"{name} from {start}")
        if self.down:
            raise link.ServerUnreachable("nobody is there.")
        path = self.folder / name
        if not path.is_file():
            raise link.NotServed(f"404 for {name}", status=404)
        content = path.read_bytes()
        if self.change is not None:
            content = self.change(name, content)
        content = content[start:]
        for at in range(0, len(content), 4096):
            piece = content[at : at + 4096]
            self.bytes += len(piece)
            if self.breaks_after is not None and self.bytes > self.breaks_after:
                raise link.ServerUnreachable("the connection broke.")
            yield piece


@dataclass
class Device:
    """One computer's agent."""

    config: AgentConfig
    files: Folder
    db: sqlite3.Connection = field(init=False)

    def __post_init__(self) -> None:
        prepare(self.config)
        self.db = database.open_in(self.config.state_dir)

    @classmethod
    def at(cls, state: Path, folder: Path | None = None) -> Device:
        return cls(AgentConfig(state_dir=state), Folder(folder or repository.published()))

    def enroll(self) -> None:
        upkeep.begin_anew(self.config, self.db, repository.to_pin())

    def hears(self, wanted: int) -> None:
        upkeep.hear(self.db, wanted, repository.to_pin())

    def update(self, wanted: int | None = None) -> updating.Outcome:
        if wanted is not None:
            self.hears(wanted)
        files = cast(link.Files, self.files)
        return updating.noted_run(self.config, self.db, files)

    def refusal(self, wanted: int | None = None) -> Refused:
        """The refusal that the update ends with; what was in force must still be."""
        before = self.version
        with pytest.raises(Refused) as refused:
            self.update(wanted)
        assert self.version == before, "a refused set changes nothing"
        assert upkeep.told(self.config, self.db).code == refused.value.code, "the server is told"
        return refused.value

    @property
    def number(self) -> int:
        return updating.number_in_force(self.config)

    @property
    def version(self) -> str:
        return definitions.in_force(self.config.state_dir).version


@dataclass
class Workshop:
    """The operator with the keys."""

    folder: Path

    def ask(self, path: Path) -> bytes | None:
        return PASSPHRASE

    def make_keys(self, now: datetime | None = None) -> None:
        keys.make(self.folder / "keys", passphrase=PASSPHRASE, now=now or repository.moment())

    def signer(self) -> CryptoSigner:
        return keys.targets_signer([self.folder / "keys" / "targets.pem"], ask=self.ask)

    def imports(self, path: Path, name: str, **more: object) -> Imported:
        return importing.take(
            path,
            name=name,
            clean=more.pop("clean", [self.clean()]),  # type: ignore[arg-type]  # passed on
            signer=self.signer(),
            by="olga",
            now=more.pop("now", repository.moment()),  # type: ignore[arg-type]  # passed on
            **more,  # type: ignore[arg-type]  # passed on
        )

    def clean(self) -> Path:
        folder = self.folder / "clean"
        if not folder.exists():
            folder.mkdir(parents=True)
            for number in range(10):
                (folder / f"letter-{number}").write_text(f"Dear Alice, this is letter {number}.")
        return folder

    def hashes(self, texts: list[str], name: str = "list", **more: object) -> DefinitionSet:
        """Import the hashes of these texts; the signed set."""
        path = self.folder / f"{name}.txt"
        path.write_text("".join(f"{sha256(text)}; Family {len(text)}\n" for text in texts))
        made = self.imports(path, name, **more).made
        assert made is not None
        return made

    def rule(self, source: str, name: str = "rules", **more: object) -> Imported:
        path = self.folder / f"{name}.yar"
        path.write_text(source)
        return self.imports(path, name, **more)


def later(**much: int) -> datetime:
    return repository.moment() + timedelta(**much)
