"""`remote`: whether members may have this computer do things from afar."""

from __future__ import annotations

import argparse

from doorward_agent import remote
from doorward_agent.commands import config_of
from doorward_agent.terminal import say


def run(arguments: argparse.Namespace) -> int:
    """Switch remote actions on or off, and say how it is now."""
    config = config_of(arguments)
    if arguments.switch:
        remote.switch(config, off=arguments.switch == "off")
    if remote.is_off(config):
        say("Remote actions are off: what members ask of this computer from afar is refused.")
    else:
        say("Remote actions are on: members can have this computer scan, restore and delete.")
        say("To refuse them: `remote off`.")
    return 0
