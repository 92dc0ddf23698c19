"""What `doctor` says of the machine itself."""

from pathlib import Path

import pytest

from doorward.accounts import hashing
from doorward.starters import doctor


@pytest.mark.parametrize(
    ("enabled", "states"),
    [
        ("[always] madvise never", ["ok"]),
        ("always [madvise] never", ["note"]),
        ("always madvise [never]", ["note"]),
        (None, []),
    ],
)
def test_an_operator_hears_that_small_pages_make_sign_ins_slower(
    enabled: str | None, states: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    told = tmp_path / "enabled"
    if enabled is not None:
        told.write_text(enabled + "\n")
    monkeypatch.setattr(hashing, "LARGE_PAGES", told)
    found = list(doctor._memory())
    assert [one.state for one in found] == states
    assert all(str(told) in one.advice for one in found if one.state == "note")
