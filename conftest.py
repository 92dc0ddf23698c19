"""What a run finds out is kept where DOORWARD_KEEP_RESULTS says: for `./doorward test --checks`."""

from __future__ import annotations

import json
import os
from pathlib import Path

import pytest

KEEP_AT = "DOORWARD_KEEP_RESULTS"
THERE, PASSED, SKIPPED, FAILED = "there", "passed", "skipped", "failed"


def pytest_configure(config: pytest.Config) -> None:
    """Keep results, if asked to; of many workers their head keeps those of all."""
    if KEEP_AT in os.environ and not hasattr(config, "workerinput"):
        config.pluginmanager.register(Results(Path(os.environ[KEEP_AT])))


class Results:
    """How each test went, by its node id; of a run that only collects, whether it would run."""

    def __init__(self, file: Path) -> None:
        self._file = file
        self._found: dict[str, str] = {}

    def pytest_collection_finish(self, session: pytest.Session) -> None:
        """Note every test there is, and which would be skipped."""
        if session.config.option.collectonly:
            self._found = {
                item.nodeid: SKIPPED if _is_marked_to_skip(item) else THERE
                for item in session.items
            }

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        """Note how it went: a test whose set-up or tear-down failed has failed."""
        if report.failed:
            self._found[report.nodeid] = FAILED
        elif report.skipped:
            self._found[report.nodeid] = SKIPPED
        elif report.when == "call":
            self._found[report.nodeid] = PASSED

    def pytest_sessionfinish(self) -> None:
        """Write it down."""
        self._file.parent.mkdir(exist_ok=True)
        self._file.write_text(json.dumps(self._found, indent=0))


def _is_marked_to_skip(item: pytest.Item) -> bool:
    if item.get_closest_marker("skip"):
        return True
    return any(mark.args and mark.args[0] for mark in item.iter_markers("skipif"))
