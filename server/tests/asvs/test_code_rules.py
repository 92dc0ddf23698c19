"""Checks of ASVS that hold for the whole code, so that the code itself is asked."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from pathlib import Path

import pytest
from django.apps import apps
from django.test import Client
from django.urls import get_resolver

import doorward
import doorward_protocol

SOURCES = [Path(str(package.__file__)).parent for package in (doorward, doorward_protocol)]
# Spreads load in time; nothing is guessed by knowing it.
HARMLESS_CHANCE: frozenset[str] = frozenset()


def modules() -> Iterator[Path]:
    for folder in SOURCES:
        yield from folder.rglob("*.py")


def imported(path: Path) -> set[str]:
    names = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            names |= {alias.name.partition(".")[0] for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.level == 0:
            names.add((node.module or "").partition(".")[0])
    return names


def test_v6_5_3_chance_comes_from_the_secrets_module_alone() -> None:
    guessable = [
        path.name
        for path in modules()
        if "random" in imported(path) and path.name not in HARMLESS_CHANCE
    ]
    assert guessable == []
    # Django's own helper is fit for secrets too; uuid4 reads the system's source.
    assert sum("secrets" in imported(path) for path in modules()) > 5


QUESTION = re.compile(
    r"security[_ ]question|mother'?s|maiden|first pet|password[_ ]hint", re.IGNORECASE
)


def test_v6_4_2_there_are_no_hints_and_no_questions() -> None:
    for folder in SOURCES:
        for path in [*folder.rglob("*.html"), *folder.rglob("*.py")]:
            assert not QUESTION.search(path.read_text()), path
    fields = [
        f"{model._meta.label}.{field.name}"
        for model in apps.get_models()
        for field in model._meta.get_fields()
    ]
    assert [name for name in fields if re.search("hint|question|answer", name, re.IGNORECASE)] == []


@pytest.mark.django_db
def test_v6_3_3_no_page_for_operators_is_there_to_be_reached_without_a_second_step(
    alices_browser: Client, client: Client
) -> None:
    # There is no console yet; whoever adds one meets this test and the rule that it guards.
    routes = [str(pattern.pattern) for pattern in get_resolver().url_patterns]
    assert not any(route.startswith(("console", "admin")) for route in routes)
    for browser in (alices_browser, client):
        for path in ("/console/", "/admin/"):
            assert browser.get(path).status_code == 404
