"""Who takes part in the journeys of the real agent, and where its folders are."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pytest
from tests.conftest import Server
from tests.journeys.people import Alice, Member


@pytest.fixture
def alice(server: Server, request: pytest.FixtureRequest) -> Iterator[Alice]:
    """The owner of a fresh account; some journeys have her at the portal's pages instead."""
    address = f"alice-{abs(hash(request.node.name))}@example.org"
    with closing(Alice(server, address)) as found:
        yield found


@pytest.fixture(scope="module")
def member(server: Server) -> Iterator[Member]:
    """Somebody who asks devices to do things."""
    with closing(Member(server)) as found:
        yield found


@pytest.fixture
def state(tmp_path: Path) -> Path:
    """The agent's folder."""
    return tmp_path / "agent"


@pytest.fixture
def home(tmp_path: Path) -> Path:
    """A folder with nothing in it yet."""
    folder = tmp_path / "home"
    folder.mkdir()
    return folder
