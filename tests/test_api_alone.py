"""Must show 3: from sign-up to threat by the API alone, with the very commands of docs/api.md."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from tests.conftest import Server

DOCUMENT = Path(__file__).parents[1] / "docs" / "api.md"


def commands(server: Server, state: Path) -> str:
    """Return the document's shell blocks as one script for this server and this agent."""
    blocks = re.findall(r"^```sh\n(.*?)^```", DOCUMENT.read_text(), re.MULTILINE | re.DOTALL)
    assert len(blocks) == 8
    agent = f'"{sys.executable}" -m doorward_agent'
    script = "\necho\n".join(blocks)
    script = re.sub(
        r"\./doorward agent (\w+)([^\n]*?)( \|\| [^\n]*)?$",
        rf'{agent} \1\2 --state "{state}"\3',
        script,
        flags=re.MULTILINE,
    )
    return "set -euo pipefail\n" + script.replace("http://localhost:8000", server.url)


@pytest.mark.skipif(not shutil.which("curl"), reason="curl is not installed")
def test_the_walk_in_the_documentation_leads_from_sign_up_to_a_threat(
    server: Server, tmp_path: Path
) -> None:
    walk = subprocess.Popen(
        [shutil.which("bash") or "bash", "-c", commands(server, tmp_path / "agent")],
        cwd=tmp_path,
        env={**os.environ, "HOME": str(tmp_path)},
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )
    told, _ = walk.communicate(server.mailed_code("dora@example.org") + "\n", timeout=120)
    assert walk.returncode == 0, told
    assert '"email": "dora@example.org"' in told
    assert '"state": "used"' in told
    assert re.search(r'"items": \[\{"id": "[^"]+", "device": \{[^}]*"name": "Kitchen laptop"', told)
    assert '"action": "quarantined"' in told
    assert '"state": "completed"' in told
    assert "Dora\\u2019s laptop" in told or "Dora’s laptop" in told
    assert not (tmp_path / "downloads" / "invoice.com").exists()
