"""What this computer does from afar, and what it never does."""

from __future__ import annotations

import os
from typing import Any
from uuid import uuid4

import pytest

from doorward_agent import loop, policy, remote
from doorward_agent.commands import act
from doorward_agent.config import AgentConfig
from doorward_protocol import messages
from doorward_protocol.messages import COMMAND_KINDS, CommandArgs


def command(kind: str, **args: Any) -> messages.Command:
    return messages.Command(
        command_uid=uuid4(), seq=1, kind=kind, args=CommandArgs(**args), not_after=1
    )


def test_a51_no_kind_runs_a_program_and_only_known_kinds_are_declared() -> None:
    assert loop.KNOWN_COMMANDS == act.KINDS
    assert set(COMMAND_KINDS) >= loop.KNOWN_COMMANDS
    assert not any("exec" in kind or "shell" in kind for kind in COMMAND_KINDS)


def test_switched_off_here_it_declares_nothing_but_that(config: AgentConfig) -> None:
    assert not remote.is_off(config)
    remote.switch(config, off=True)
    assert remote.is_off(config)
    declared = loop.capabilities(policy.DEFAULT, remote_off=True)
    assert messages.REMOTE_OFF in declared
    assert not set(declared) & set(COMMAND_KINDS)
    remote.switch(config, off=False)
    assert set(loop.capabilities(policy.DEFAULT)) >= loop.KNOWN_COMMANDS


@pytest.mark.skipif(os.name == "nt", reason="paths of POSIX")
@pytest.mark.parametrize(
    ("kind", "args", "is_sound"),
    [
        ("scan.run", {"scope": "quick"}, True),
        ("scan.run", {"paths": ("/home",)}, True),
        ("scan.run", {}, False),
        ("scan.run", {"paths": ("/home",), "scope": "full"}, False),
        ("scan.run", {"paths": ("home",)}, False),
        ("scan.run", {"paths": ("/home/../etc",)}, False),
        ("scan.run", {"paths": ("/home\n",)}, False),
        ("scan.run", {"scope": "quick", "quarantine_id": uuid4()}, False),
        ("quarantine.restore", {"quarantine_id": uuid4()}, True),
        ("quarantine.restore", {}, False),
        ("quarantine.delete", {"quarantine_id": uuid4(), "paths": ("/x",)}, False),
        ("key.rotate", {}, True),
        ("key.rotate", {"paths": ("/x",)}, False),
        ("diagnostics.collect", {"paths": ("/etc/shadow",)}, False),
    ],
)
def test_a51_arguments_outside_the_schema_are_refused_here_too(
    kind: str, args: dict[str, Any], is_sound: bool
) -> None:
    assert remote.is_sound(command(kind, **args)) is is_sound


def test_a_file_comes_back_for_a_time_and_nothing_else_has_an_end() -> None:
    held = uuid4()
    assert remote.is_sound(command("quarantine.restore", quarantine_id=held, until=5))
    assert not remote.is_sound(command("quarantine.delete", quarantine_id=held, until=5))
    assert not remote.is_sound(command("scan.run", scope="quick", until=5))
    assert not remote.is_sound(command("quarantine.restore", until=5))
