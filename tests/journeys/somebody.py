"""Somebody who acts on the server's database, by a process of their own as the portal is one."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from typing import Any

from tests.conftest import Server


class Somebody:
    """Whoever does what a script reads, line by line, and answers in a line each."""

    def __init__(self, server: Server, script: str, *words: str) -> None:
        self._process = subprocess.Popen(
            [sys.executable, "-c", script, *words],
            env={
                **os.environ,
                **server.environment,
                "DJANGO_SETTINGS_MODULE": "doorward.settings",
                "DOORWARD_DATA": str(server.data),
            },
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )

    def __call__(self, *words: Any) -> Any:
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._process.stdin.write(json.dumps(words) + "\n")
        self._process.stdin.flush()
        answer = self._process.stdout.readline()
        assert answer, f"{words[0]} ended the process"
        return json.loads(answer)

    def close(self) -> None:
        """Leave."""
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._process.stdin.close()
        self._process.stdout.close()
        self._process.wait(10)
