"""Thousands of commands, with crashes and lost messages: none is done twice, none is lost.

The server's own functions and the agent's own journal and outbox; between them a network that loses
questions and answers, and an agent that is killed at any step.
"""

from __future__ import annotations

import contextlib
import json
import random
import sqlite3
from collections import Counter
from pathlib import Path
from types import SimpleNamespace
from typing import Any
from uuid import UUID, uuid4

import msgspec
import pytest
import time_machine
from django.utils import timezone
from server.tests.portal.stock import device_of

from doorward.accounts.models import Account
from doorward.devices import commands
from doorward.devices.models import OPEN, Command, CommandState, Device
from doorward_agent import database, findings, journal, outbox
from doorward_agent.config import AgentConfig
from doorward_agent.loop import as_told
from doorward_protocol import messages
from doorward_protocol.messages import CommandArgs

KINDS = ["scan.run", "quarantine.delete"]
LOST = 0.1
KILLED = 0.02


class Killed(Exception):
    """The agent's process ended here."""


class Lost(Exception):
    """A message, or the answer to it, did not arrive."""


class Agent:
    """One device: its journal and outbox are the real ones, what it does is counted."""

    def __init__(self, device: Device, folder: Path, chance: random.Random) -> None:
        folder.mkdir(mode=0o700)
        self.device, self.folder, self.chance = device, folder, chance
        self.config = AgentConfig(state_dir=folder)
        self.vault: set[str] = set()
        self.effects: Counter[str] = Counter()
        self.faults = True
        self.kills = self.losses = 0
        self.db = self._open()

    def _open(self) -> sqlite3.Connection:
        db = database.open_in(self.folder)
        # A killed process loses nothing that was committed; only a power cut would.
        db.execute("PRAGMA synchronous = OFF")
        return db

    def maybe_killed(self) -> None:
        if self.faults and self.chance.random() < KILLED:
            raise Killed

    def call(self, ask: Any) -> Any:
        """Ask the server; the question or the answer may be lost."""
        lost = self.chance.random() if self.faults else 1.0
        if lost < LOST / 2:
            self.losses += 1
            raise Lost
        answer = ask()
        if lost < LOST:
            self.losses += 1
            raise Lost
        return answer

    def live(self) -> None:
        """One round: check in, act, tell; killed anywhere, start again."""
        try:
            with contextlib.suppress(Lost):
                self._round()
        except Killed:
            self.kills += 1
            self.db.close()
            self.db = self._open()
            self._complete()
            journal.recover(
                self.db,
                now=self.now(),
                repeatable=journal.REPEATABLE,
                alive=findings.commanded(self.db),
            )

    def now(self) -> int:
        return int(timezone.now().timestamp() * 1000)

    def _round(self) -> None:
        answer = self.call(lambda: commands.send(self.device.pk, timezone.now()))
        self.maybe_killed()
        with database.transaction(self.db):
            for command in answer.commands:
                journal.receive(
                    self.db,
                    uid=str(command.command_uid),
                    seq=command.seq,
                    kind=command.kind,
                    args=messages.encode(command.args),
                    not_after=command.not_after,
                    now=self.now(),
                    known=KINDS,
                )
                self.maybe_killed()
        for uid in answer.cancel:
            journal.cancel(self.db, str(uid), now=self.now())
        # It begins without waiting until it could say that it knows.
        if self.chance.random() < 0.5:
            self._tell()
        for command in journal.ready(self.db):
            self.maybe_killed()
            if journal.start(self.db, command.uid, now=self.now()):
                self._act(command)
            if self.chance.random() < 0.5:
                self._tell()
        self._tell()

    def _act(self, command: journal.Command) -> None:
        self.maybe_killed()
        if command.kind == "scan.run":
            self.effects[command.uid] += 1
            self.maybe_killed()
            with database.transaction(self.db):
                event = outbox.Event(command.uid, outbox.SUMMARY, b"{}")
                outbox.put(self.db, [event], max_bytes=2**40, max_events=2**30)
                self.maybe_killed()
                journal.settle(self.db, command.uid, "succeeded", now=self.now())
                self.maybe_killed()
            return
        record: Any = SimpleNamespace(id=_target(command), path="/x", size=1, sha256="0" * 64)
        uid = findings.intend_remediation(self.db, record, "deleted", command_uid=command.uid)
        self.maybe_killed()
        self.vault.remove(record.id)  # Fails where it was done before.
        self.effects[command.uid] += 1
        self.maybe_killed()
        told = findings.act_on(record, "deleted", command_uid=command.uid)
        with database.transaction(self.db):
            findings.tell_remediation(self.config, self.db, uid, told, self.now())
            self.maybe_killed()

    def _complete(self) -> None:
        """What treatment.complete does for files, with the vault of this test."""
        for uid, _, _, body in outbox.intents(self.db):
            told = json.loads(body)
            if told["quarantine_id"] in self.vault:
                findings.drop(self.db, uid)
            else:
                findings.tell_remediation(self.config, self.db, uid, told, self.now())

    def _tell(self) -> None:
        for command in journal.unanswered(self.db):
            said = as_told(command)
            uid = UUID(command.uid)
            self.call(lambda uid=uid, said=said: self._hear(uid, said))
            if self.faults and self.chance.random() < 0.05:
                self._hear(uid, said)  # The network said it twice.
            self.maybe_killed()
            journal.answered(self.db, command.uid, command.state)

    def _hear(self, uid: UUID, said: messages.CommandState) -> None:
        commands.hear(self.device.pk, uid, said, timezone.now())


def _target(command: journal.Command) -> str:
    return str(msgspec.json.decode(command.args, type=CommandArgs).quarantine_id)


def simulate(account: Account, folder: Path, *, number: int, devices: int, seed: int) -> None:
    chance = random.Random(seed)  # noqa: S311 - chance that can be repeated
    agents = [
        Agent(device_of(account, capabilities=KINDS), folder / str(each), chance)
        for each in range(devices)
    ]
    asked = 0
    with time_machine.travel(timezone.now(), tick=False) as clock:
        while asked < number:
            for agent in agents:
                for _ in range(chance.randint(0, 4)):
                    kind = chance.choice(KINDS)
                    item = uuid4()
                    args = CommandArgs(quarantine_id=item)
                    if kind == "scan.run":
                        args = CommandArgs(paths=(f"/home/{item}",))
                    else:
                        agent.vault.add(str(item))
                    command = commands.ask(agent.device, kind, args, actor=None)
                    asked += 1
                    if chance.random() < 0.1:
                        commands.cancel(command, actor=None)
                # Sometimes it is away for longer than anything waits.
                if chance.random() < 0.06 / devices:
                    clock.shift(commands.LIFE.total_seconds() * 1.1)
                    commands.settle_due(timezone.now())
                clock.shift(chance.random() * 60)
                for _ in range(chance.choice([0, 1, 2, 4])):
                    agent.live()
        for agent in agents:
            agent.faults = False
            for _ in range(6):
                agent.live()
        commands.settle_due(timezone.now())
        # The sum of it: nothing is open, both sides agree, and every effect is there once.
        assert not Command.objects.filter(state__in=OPEN).exists()
    states: Counter[str] = Counter()
    for agent in agents:
        told = dict(agent.db.execute("SELECT uid, state FROM command"))
        events = Counter(uid for (uid,) in agent.db.execute("SELECT uid FROM event"))
        for command in Command.objects.filter(device=agent.device):
            uid, effects = str(command.uid), agent.effects[str(command.uid)]
            states[command.state] += 1
            if command.code == "no-word":
                # Not heard of for a week: the server says that it does not know.
                assert effects <= 1
                continue
            if uid in told:
                assert commands._ENDS[told[uid]] == command.state
            else:
                # Never sent: the server alone has ended it.
                assert command.state in {CommandState.EXPIRED, CommandState.CANCELED}
                assert command.sent_at is None or command.cancel_asked_at is not None
            assert effects <= 1, "done twice"
            if command.state == CommandState.DONE:
                assert effects == 1, "lost"
            elif command.state != CommandState.INTERRUPTED:
                assert effects == 0, command.state
            else:
                assert command.kind == "scan.run"
            if command.kind == "scan.run":
                assert events[uid] == (command.state == CommandState.DONE)
        assert max(events.values(), default=0) <= 1
        assert agent.kills
        assert agent.losses
        agent.db.close()
    assert set(states) == {"done", "interrupted", "expired", "canceled"}
    assert states.total() == asked >= number


@pytest.mark.django_db
def test_among_crashes_and_lost_messages_nothing_is_done_twice_and_nothing_is_lost(
    alices_account: Account, tmp_path: Path
) -> None:
    simulate(alices_account, tmp_path, number=400, devices=3, seed=4)


@pytest.mark.slow
@pytest.mark.django_db
@pytest.mark.parametrize("seed", [1, 2])
def test_ten_thousand_commands_among_crashes_and_lost_messages(
    alices_account: Account, tmp_path: Path, seed: int
) -> None:
    simulate(alices_account, tmp_path, number=10_000, devices=20, seed=seed)
