from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from tests.definitions.workshop import Device, Workshop


@pytest.fixture
def olga(tmp_path: Path, settings: Any, db: None) -> Workshop:
    """The operator, with fresh keys and an empty repository."""
    settings.DATA = tmp_path / "data"
    made = Workshop(tmp_path / "olga")
    made.folder.mkdir()
    made.make_keys()
    return made


@pytest.fixture
def laptop(olga: Workshop, tmp_path: Path) -> Iterator[Device]:
    """Alice's laptop, enrolled."""
    device = Device.at(tmp_path / "laptop")
    device.enroll()
    yield device
    device.db.close()
