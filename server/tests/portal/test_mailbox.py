"""The demo's mailbox exists in a demo and nowhere else."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from django.test import Client

pytestmark = pytest.mark.django_db


def test_outside_a_demo_there_is_no_mailbox(client: Client) -> None:
    assert client.get("/demo/mailbox/", HTTP_HOST="localhost").status_code == 404


def test_a_demo_shows_its_mail_with_markup_inert(
    client: Client, settings: Any, tmp_path: Path
) -> None:
    settings.DEMO = True
    (tmp_path / "mail").mkdir()
    (tmp_path / "mail" / "1.eml").write_text(
        "To: alice@example.org\nSubject: <b>Hello</b>\nDate: Sun, 22 Nov 2026 10:00:00 +0000\n"
        "\n<script>alert(1)</script> 123456\n"
    )
    page = client.get("/demo/mailbox/", HTTP_HOST="localhost").content.decode()
    assert "123456" in page
    assert "<script>alert" not in page
    assert "<b>Hello" not in page


def test_a_mail_that_goes_while_the_mailbox_is_read_is_left_out(
    client: Client, settings: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    settings.DEMO = True
    (tmp_path / "mail").mkdir()
    for number in (1, 2):
        (tmp_path / "mail" / f"{number}.eml").write_text(
            f"To: alice@example.org\nSubject: Mail {number}\n\nText\n"
        )
    read = Path.read_bytes

    def read_and_delete_the_other(path: Path) -> bytes:
        for other in path.parent.glob("*.eml"):
            if other != path:
                other.unlink()
        return read(path)

    monkeypatch.setattr(Path, "read_bytes", read_and_delete_the_other)
    answer = client.get("/demo/mailbox/", HTTP_HOST="localhost")
    assert answer.status_code == 200
    page = answer.content.decode()
    assert ("Mail 1" in page) != ("Mail 2" in page)
