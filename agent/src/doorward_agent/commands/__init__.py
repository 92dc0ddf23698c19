"""One module for each command of the agent: `run(arguments)` answers the exit status."""

from __future__ import annotations

import argparse
import os
import shlex
import subprocess
import sys
from pathlib import Path

from doorward_agent import config


class CommandRefused(Exception):
    """The command cannot be done as asked; the message says why and what to do instead."""


def own_command(arguments: argparse.Namespace, *words: str) -> str:
    """Answer another command of this agent as the person can type it: started the same way, for
    the same state folder."""
    started = os.environ.get("DOORWARD_STARTED_AS", "")
    if not started:
        program = Path(sys.argv[0])
        in_module = program.name == "__main__.py"
        started = _typed(sys.executable, "-m", "doorward_agent") if in_module else program.name
    place = ("--state", str(Path(arguments.state).absolute())) if arguments.state else ()
    return f"{started} {_typed(*words, *place)}"


def _typed(*words: str) -> str:
    return subprocess.list2cmdline(words) if os.name == "nt" else shlex.join(words)


def config_of(arguments: argparse.Namespace) -> config.AgentConfig:
    """Answer the agent's configuration for the state folder that was named, made ready for use."""
    found = (
        config.AgentConfig(state_dir=Path(arguments.state).absolute())
        if arguments.state
        else config.AgentConfig()
    )
    config.prepare(found)
    return found
