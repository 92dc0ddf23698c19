"""The database goes away, is busy, or is an older one: what devices notice of it."""

from __future__ import annotations

import asyncio
import sqlite3
import threading
import time
from pathlib import Path

import pytest
from django.db import connection
from django.test import Client
from server.tests.gateway.computers import Reply, code_for, finding, joined, with_door

from doorward.accounts.models import Account
from doorward.devices.models import Device, Presence
from doorward.gateway.door import Door
from doorward.reports.models import Detection


def _session() -> int:
    with connection.cursor() as cursor:
        cursor.execute("SELECT pg_backend_pid()")
        return int(cursor.fetchone()[0])


def _end_other_sessions(spared: int) -> None:
    """What a restart of PostgreSQL does to everybody's connection, but the test's own."""
    with connection.cursor() as cursor:
        cursor.execute(
            "SELECT pg_terminate_backend(pid) FROM pg_stat_activity"
            " WHERE datname = current_database() AND pid NOT IN (pg_backend_pid(), %s)",
            [spared],
        )


def test_d06_connections_that_die_are_replaced_and_nothing_is_lost(alices_code: str) -> None:
    if connection.vendor != "postgresql":
        pytest.skip("SQLite has no connections that could die")

    own = _session()

    async def act(door: Door) -> list[Reply]:
        laptop = await joined(door, alices_code)
        await laptop.check_in()
        assert (await laptop.report(finding())).status == 202
        await asyncio.gather(*(laptop.ask_token() for _ in range(8)))
        await door.jobs.run(_end_other_sessions, own)
        replies = [await laptop.check_in()]
        for _ in range(12):
            replies += [await laptop.ask_token(), await laptop.report(finding())]
        return replies

    replies = with_door(act)
    assert replies[0].status == 200
    # Whoever meets a dead connection is asked to come again; nobody is told of a fault.
    assert {reply.status for reply in replies} <= {200, 202, 503}
    assert {reply.status for reply in replies[-4:]} == {200, 202}
    accepted = sum(1 for reply in replies if reply.status == 202)
    assert Detection.objects.count() == accepted + 1
    assert Presence.objects.get().seq == 2


def test_d07_a_busy_database_is_waited_for_and_check_ins_go_on(alices_code: str) -> None:
    if connection.vendor != "sqlite":
        pytest.skip("PostgreSQL locks rows, not everything")
    locked, released = threading.Event(), threading.Event()

    def hold() -> None:
        with sqlite3.connect(Path(connection.settings_dict["NAME"]), timeout=20) as other:
            other.execute("BEGIN IMMEDIATE")
            locked.set()
            time.sleep(1.5)
            other.rollback()
        other.close()
        released.set()

    async def act(door: Door) -> tuple[Reply, Reply, bool]:
        laptop = await joined(door, alices_code)
        await laptop.check_in()
        holder = threading.Thread(target=hold)
        holder.start()
        await asyncio.to_thread(locked.wait)
        report = asyncio.ensure_future(laptop.report(finding()))
        called = await laptop.check_in()
        in_time = not released.is_set()
        stored = await report
        await asyncio.to_thread(holder.join)
        return called, stored, in_time

    called, stored, in_time = with_door(act)
    assert called.status == 200
    assert in_time
    assert stored.status == 202
    assert Detection.objects.count() == 1


def test_a_server_restored_from_a_backup_goes_on_with_its_devices(alices_code: str) -> None:
    async def before(door: Door) -> tuple[object, Reply]:
        laptop = await joined(door, alices_code)
        for _ in range(5):
            await laptop.check_in()
        return laptop, await laptop.report(finding())

    laptop, _ = with_door(before)
    # The backup is older: it knows fewer calls, and not the finding.
    Presence.objects.update(seq=2, former_boot_id=None)
    Detection.objects.all().delete()

    async def after(door: Door) -> list[Reply]:
        laptop.door = door
        return [await laptop.check_in(), await laptop.report(finding()), await laptop.ask_token()]

    assert [reply.status for reply in with_door(after)] == [200, 202, 200]
    assert Device.objects.get().cloned_at is None


def test_a37_a_devices_token_opens_no_door_for_people(
    alices_code: str, alices_account: Account
) -> None:
    async def act(door: Door) -> str:
        return (await joined(door, alices_code)).token

    token = with_door(act)
    client = Client(HTTP_HOST="localhost")
    for headers in (
        {"Authorization": f"Bearer {token}"},
        {"X-Session-Token": token},
        {"Authorization": f"Token {token}"},
    ):
        for path in ("/api/v1/devices", "/api/v1/threats", "/devices/"):
            answer = client.get(path, headers=headers)
            assert answer.status_code in {302, 401, 403}, (path, headers)
            assert "laptop" not in answer.content.decode()


def test_another_accounts_code_and_devices_stay_apart(
    alices_code: str, alices_account: Account
) -> None:
    another = code_for(alices_account)

    async def act(door: Door) -> Reply:
        laptop = await joined(door, alices_code)
        phone = await joined(door, another)
        # A token says which device it is; nothing in the message can say otherwise.
        laptop_id = (await laptop.ask_token()).json["device_id"]
        return await phone.report(finding(device={"uid": laptop_id}, device_id=laptop_id))

    assert with_door(act).status == 202
    detection = Detection.objects.get()
    assert detection.device_id == Device.objects.order_by("-id")[0].pk
