"""What the agent's tests share: a closed state folder, small limits, and the harmless test file."""

import dataclasses
import os
from pathlib import Path

import pytest

from doorward_agent import scan
from doorward_agent.config import AgentConfig
from doorward_agent.definitions.build import eicar


@pytest.fixture
def config(tmp_path: Path) -> AgentConfig:
    """An agent of our own, with one worker and no clamd; files count as settled at once."""
    state = tmp_path / "state"
    state.mkdir(mode=0o700)
    return AgentConfig(state_dir=state, workers=1, clamd=False, verdict_settle_ns=0)


@pytest.fixture
def home(tmp_path: Path) -> Path:
    """A folder to scan."""
    folder = tmp_path / "home"
    folder.mkdir()
    return folder


@pytest.fixture
def eicar_file(home: Path) -> Path:
    """The test file, readable by its owner's group, from long ago."""
    path = home / "invoice.com"
    path.write_bytes(eicar())
    path.chmod(0o640)
    os.utime(path, ns=(1_111_111_111_111_111_111, 1_234_567_890_123_456_789))
    return path


@pytest.fixture
def detection(config: AgentConfig, eicar_file: Path) -> scan.Detection:
    """What a scan of the test file yields."""
    found = list(scan.run([eicar_file], dataclasses.replace(config, verdict_slots=1 << 10)))
    assert len(found) == 1
    return found[0]
