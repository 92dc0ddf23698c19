"""One module for each command of the agent: `run(arguments)` answers the exit status."""

from __future__ import annotations

import argparse
from pathlib import Path

from doorward_agent import config


class CommandRefused(Exception):
    """The command cannot be done as asked; the message says why and what to do instead."""


def config_of(arguments: argparse.Namespace) -> config.AgentConfig:
    """Answer the agent's configuration for the state folder that was named, made ready for use."""
    found = (
        config.AgentConfig(state_dir=Path(arguments.state).absolute())
        if arguments.state
        else config.AgentConfig()
    )
    config.prepare(found)
    return found
