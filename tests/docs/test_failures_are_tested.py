"""Each row of the protocol's table of failures has tests of both sides; here they are by name."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Final

import pytest

ROOT: Final = Path(__file__).resolve().parents[2]

AGENT, SERVER, BOTH = "agent/tests", "server/tests", "tests"
TESTS: Final[dict[str, tuple[str, ...]]] = {
    "The answer to enroll was lost": (
        f"{BOTH}/journeys/test_agent_and_server.py::"
        "test_a_lost_enroll_reply_costs_neither_code_nor_seat",
        f"{SERVER}/gateway/test_enroll.py::"
        "test_the_enroll_reply_lost_means_the_same_device_and_one_seat",
    ),
    "No seat is left": (
        f"{BOTH}/journeys/test_agent_and_server.py::"
        "test_without_a_seat_nothing_is_created_and_a_freed_seat_is_taken",
        f"{SERVER}/gateway/test_enroll.py::"
        "test_without_a_seat_nothing_is_made_and_the_code_still_counts",
    ),
    "The device's clock is wrong": (
        f"{BOTH}/journeys/test_agent_and_server.py::"
        "test_d10_a_clock_that_is_hours_wrong_does_not_matter",
        f"{AGENT}/test_link.py::test_a_wrong_clock_is_allowed_for_and_the_call_repeated_once",
        f"{SERVER}/gateway/test_enroll.py::test_a_wrong_clock_is_told_the_time",
    ),
    "The device was removed": (
        f"{BOTH}/journeys/test_agent_and_server.py::"
        "test_a38_a_removed_device_stops_reporting_and_goes_on_protecting",
        f"{AGENT}/test_loop.py::"
        "test_a38_a_removed_device_stops_reporting_keeps_its_queue_and_says_so",
        f"{SERVER}/gateway/test_check_in.py::test_a38_a_removed_device_is_refused_within_a_second",
    ),
    "A command or its answer was lost": (
        f"{AGENT}/test_journal.py::test_the_same_command_twice_is_kept_once",
        f"{AGENT}/test_journal.py::test_an_answer_is_owed_until_the_server_has_it",
    ),
    "A command came too late or is not known": (
        f"{AGENT}/test_journal.py::test_a_command_that_comes_too_late_is_expired",
        f"{AGENT}/test_journal.py::test_a_command_of_an_unknown_kind_is_rejected_and_never_begun",
        f"{AGENT}/test_loop.py::test_a_command_of_an_unknown_kind_is_answered_honestly_once",
    ),
    "The agent ended while a command ran": (
        f"{BOTH}/journeys/test_commands.py::"
        "test_n4_an_agent_killed_mid_scan_is_interrupted_never_done",
        f"{AGENT}/test_journal.py::"
        "test_after_a_crash_the_repeatable_runs_again_and_the_rest_is_interrupted",
    ),
    "One event is malformed": (
        f"{AGENT}/test_loop.py::test_a_refused_event_is_parked_and_the_rest_delivered",
        f"{AGENT}/test_outbox.py::"
        "test_a_refused_event_is_parked_with_its_reason_and_the_rest_goes_on",
    ),
    "The device was away for weeks": (
        f"{AGENT}/test_outbox.py::test_d04_when_full_the_oldest_summaries_go_first_and_findings_never",
        f"{AGENT}/test_loop.py::test_a_server_away_for_long_gets_everything_afterwards",
        f"{SERVER}/reports/test_intake.py::"
        "test_d10_a_device_that_was_offline_for_weeks_keeps_its_own_times",
    ),
    "Settings can't be applied": (
        f"{AGENT}/test_loop.py::test_settings_that_cannot_be_applied_are_told_and_change_nothing",
        f"{AGENT}/test_loop.py::test_settings_that_failed_are_fetched_once_and_the_next_ones_heal",
    ),
    "The disk was copied": (
        f"{BOTH}/journeys/test_agent_and_server.py::test_a_copied_disk_is_told_to_enroll_anew",
        f"{SERVER}/gateway/test_check_in.py::"
        "test_a_copied_disk_is_flagged_and_the_copy_must_enroll_anew",
    ),
    "The server was restored from a backup": (
        f"{SERVER}/gateway/test_faults.py::"
        "test_a_server_restored_from_a_backup_goes_on_with_its_devices",
    ),
    "The database is away or busy": (
        f"{AGENT}/test_loop.py::test_a_busy_server_is_left_alone_for_as_long_as_it_asks",
        f"{AGENT}/test_loop.py::test_d05_pauses_are_spread_double_and_have_a_cap",
        f"{SERVER}/gateway/test_reports.py::test_without_its_database_the_door_asks_to_come_back",
        f"{SERVER}/gateway/test_faults.py::"
        "test_d07_a_busy_database_is_waited_for_and_check_ins_go_on",
    ),
    "Too many wrong codes": (
        f"{SERVER}/gateway/test_enroll.py::"
        "test_the_twenty_first_wrong_code_from_one_address_must_wait",
        f"{AGENT}/test_link.py::test_a_busy_server_says_when_to_come_back",
    ),
    "The subscription has lapsed": (
        f"{SERVER}/gateway/test_check_in.py::test_a_changed_subscription_reaches_the_device",
        f"{AGENT}/test_loop.py::test_a_lapsed_subscription_is_said_and_protection_goes_on",
    ),
    "The protocol is too old or too new": (
        f"{SERVER}/gateway/test_enroll.py::test_a_version_we_do_not_speak_is_told_which_we_do",
        f"{AGENT}/test_loop.py::test_a_protocol_too_old_is_told_and_protection_goes_on",
    ),
}


def test_every_row_of_the_table_has_tests_and_every_test_is_there() -> None:
    text = (ROOT / "docs" / "protocol.md").read_text()
    table = text.split("\n## What can go wrong\n", 1)[1].split("\n## ", 1)[0]
    rows = re.findall(r"^\| (?!what happened|-)(.+?) \|", table, re.MULTILINE)
    assert rows == list(TESTS)


@pytest.mark.parametrize("name", sorted({name for names in TESTS.values() for name in names}))
def test_the_test_exists(name: str) -> None:
    path, _, function = name.partition("::")
    assert re.search(rf"^(async )?def {function}\(", (ROOT / path).read_text(), re.MULTILINE)
