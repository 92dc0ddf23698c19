"""The service definitions are sound and start a command that exists."""

from __future__ import annotations

import json
import plistlib
import re
import shutil
import subprocess
from pathlib import Path
from xml.etree import ElementTree

import pytest

from doorward_agent.__main__ import main
from doorward_agent.config import AgentConfig

AGENT = Path(__file__).resolve().parents[1]
SERVICES = AGENT / "services"
GUIDE = AGENT.parent / "docs" / "operators" / "agent.md"
TASK = {"t": "http://schemas.microsoft.com/windows/2004/02/mit/task"}


def test_systemd_takes_the_unit(tmp_path: Path) -> None:
    analyze = shutil.which("systemd-analyze")
    if analyze is None:
        pytest.skip("systemd-analyze is not here")
    program = tmp_path / "doorward-agent"
    program.write_text("#!/bin/sh\n")
    program.chmod(0o755)
    unit = tmp_path / "doorward-agent.service"
    text = (SERVICES / "doorward-agent.service").read_text()
    unit.write_text(text.replace("/opt/doorward-agent/bin/doorward-agent", str(program)))
    done = subprocess.run(  # noqa: S603 - the system's own program
        [analyze, "verify", "--man=no", str(unit)], capture_output=True, text=True, check=False
    )
    assert (done.returncode, done.stderr) == (0, "")


def test_systemd_stops_the_agent_later_than_the_agent_stops_its_scan() -> None:
    text = (SERVICES / "doorward-agent.service").read_text()
    found = re.search(r"^TimeoutStopSec=(\d+)$", text, re.MULTILINE)
    assert found
    assert int(found[1]) > AgentConfig().stop_seconds


def test_launchd_can_read_the_property_list() -> None:
    with (SERVICES / "org.doorward.agent.plist").open("rb") as file:
        found = plistlib.load(file)
    assert found["ProgramArguments"][1] == "run"
    assert found["Umask"] == 0o077


def test_windows_can_read_the_task() -> None:
    task = ElementTree.parse(SERVICES / "doorward-agent-task.xml")  # noqa: S314 - our own file
    assert task.findtext(".//t:Arguments", namespaces=TASK) == "run"
    assert task.findtext(".//t:UserId", namespaces=TASK) == "S-1-5-18"


def test_the_guide_names_every_service_file_and_every_command(
    capsys: pytest.CaptureFixture[str],
) -> None:
    text = GUIDE.read_text()
    for path in SERVICES.iterdir():
        assert f"agent/services/{path.name}" in text
    with pytest.raises(SystemExit):
        main(["--help"])
    commands = re.findall(r"^    (\w+) ", capsys.readouterr().out, re.MULTILINE)
    assert len(commands) >= 5
    for command in commands:
        assert f"| `{command}" in text


def test_the_guide_names_every_field_of_a_scan_as_json(
    home: Path, tmp_path: Path, eicar_file: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    main(["scan", "--json", "--full-speed", "--state", str(tmp_path / "s"), str(home)])
    found = json.loads(capsys.readouterr().out)
    text = GUIDE.read_text()
    for name in [*found, *found["threats"][0]]:
        assert f"`{name}`" in text or f"`{name}[]`" in text, name
