"""Whether members may have this computer do things from afar: decided here, on the computer.

What is decided here stands above everything the server says: commands that still come are answered
with `rejected`, and none is carried out.
"""

from __future__ import annotations

import os

from doorward_agent.config import AgentConfig
from doorward_protocol import messages
from doorward_protocol.messages import CommandArgs, is_whole_path

FILE = "remote-actions-off"


def is_off(config: AgentConfig) -> bool:
    """Tell whether remote actions are switched off on this computer; when in doubt they are."""
    try:
        os.stat(config.state_dir / FILE)  # noqa: PTH116 - asked at each check-in
    except FileNotFoundError:
        return False
    except OSError:
        pass
    return True


def switch(config: AgentConfig, *, off: bool) -> None:
    """Switch remote actions off, or on again; it holds from the next check-in on."""
    path = config.state_dir / FILE
    if off:
        path.touch(mode=0o600)
    else:
        path.unlink(missing_ok=True)


def is_sound(command: messages.Command) -> bool:
    """Tell whether the arguments are those of its kind, whatever server has sent it."""
    args = command.args
    if command.kind == "scan.run":
        windows = os.name == "nt"
        whole = all(is_whole_path(path, windows=windows) for path in args.paths)
        held = args.quarantine_id is not None or args.until is not None
        return whole and bool(args.paths) != bool(args.scope) and not held
    if command.kind in {"quarantine.restore", "quarantine.delete"}:
        until = args.until if command.kind == "quarantine.restore" else None
        wanted = CommandArgs(quarantine_id=args.quarantine_id, until=until)
        return args == wanted and args.quarantine_id is not None
    return args == CommandArgs()
