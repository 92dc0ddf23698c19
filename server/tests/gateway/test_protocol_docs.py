"""docs/protocol.md says what the code does: every field, bound, address, error and limit."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import msgspec
import pytest
from msgspec import inspect

from doorward.devices import check_in, enrollment, key_change
from doorward.gateway import bodies, connections, known, problems
from doorward.gateway.door import Door
from doorward_protocol import definitions, messages, signing
from doorward_protocol import settings as device_settings

DOCS = Path(__file__).parents[3] / "docs" / "protocol.md"
TEXT = DOCS.read_text(encoding="utf-8")

STRUCTS = [
    thing
    for name, thing in (vars(messages) | vars(device_settings) | vars(definitions)).items()
    if isinstance(thing, type)
    and issubclass(thing, msgspec.Struct)
    and thing is not msgspec.Struct
    and not name.startswith("_")
    # The same messages as Report and SettingsAnswer, read in another way.
    and thing not in {messages.RawReport, messages.RawSettings}
]


def table_under(heading: str) -> list[list[str]]:
    """The rows of the first table after this heading, without its head."""
    found = re.search(
        rf"^#+ {re.escape(heading)}\n(.*?)(?=^#+ |\Z)", TEXT, re.MULTILINE | re.DOTALL
    )
    assert found, f"docs/protocol.md has no heading {heading!r}"
    lines = [line for line in found[1].splitlines() if line.startswith("|")]
    return [[cell.strip() for cell in line.strip("|").split("|")] for line in lines[2:]]


NUMBERS = {
    messages.INT63: "count",
    messages.LAST_MOMENT: "moment",
    2**31 - 1: "version",
    31 * 86400: "seconds",
}


def words(kind: Any) -> str:
    """A type as the page writes it."""
    match kind:
        case inspect.StrType():
            shortest = kind.min_length or 0
            if shortest == kind.max_length:
                return f"text of {shortest}"
            return f"text{f', {shortest}' if shortest else ''} to {kind.max_length}"
        case inspect.IntType():
            lowest, highest = kind.ge, kind.le if kind.lt is None else kind.lt - 1
            if lowest == 0 and highest in NUMBERS:
                return NUMBERS[highest]
            return f"`{lowest}`" if lowest == highest else f"{lowest} to {highest}"
        case inspect.BoolType():
            return "true or false"
        case inspect.UUIDType():
            return "UUID"
        case inspect.NoneType():
            return "null"
        case inspect.LiteralType():
            return " or ".join(f"`{value}`" for value in kind.values)
        case inspect.StructType():
            return str(kind.cls.__name__)
        case inspect.VarTupleType():
            least = f"{kind.min_length} to " if kind.min_length else "at most "
            return f"list of {words(kind.item_type)}; {least}{kind.max_length}"
        case inspect.DictType():
            return (
                f"object of {words(kind.key_type)}: {words(kind.value_type)}; "
                f"at most {kind.max_length}"
            )
        case inspect.UnionType():
            structs = [one for one in kind.types if isinstance(one, inspect.StructType)]
            if len(structs) == len(kind.types):
                return " or ".join(one.cls.__name__ for one in structs)
            present = [one for one in kind.types if not isinstance(one, inspect.NoneType)]
            return f"{words(present[0])}, or null"
    raise AssertionError(f"the page has no word for {kind}")


def fields(struct: type[msgspec.Struct]) -> list[list[str]]:
    """What the page must say of each field: its name, type, and whether it may be missing."""
    info = inspect.type_info(struct)
    assert isinstance(info, inspect.StructType)
    rows = []
    if info.tag is not None:
        rows.append([f"`{info.tag_field}`", f"`{info.tag}`", "yes"])
    for field in info.fields:
        kind = field.type
        if isinstance(kind, inspect.UnionType):
            # UNSET means that the field is left out, which the last column says.
            kinds = tuple(one for one in kind.types if not _is_unset(one))
            kind = kinds[0] if len(kinds) == 1 else inspect.UnionType(kinds)
        rows.append([f"`{field.encode_name}`", words(kind), "yes" if field.required else "no"])
    return rows


def _is_unset(kind: Any) -> bool:
    return isinstance(kind, inspect.CustomType) and kind.cls is msgspec.UnsetType


@pytest.mark.parametrize("struct", STRUCTS, ids=lambda struct: struct.__name__)
def test_every_message_is_described_as_it_is(struct: type[msgspec.Struct]) -> None:
    rows = table_under(struct.__name__)
    assert [row[:3] for row in rows] == fields(struct)
    assert all(row[3] for row in rows), "each field says what it is for"


def test_nothing_is_described_that_is_not_there() -> None:
    section = TEXT.split("## Messages")[1].split("\n## ")[0]
    described = re.findall(r"^### (\w+)$", section, re.MULTILINE)
    assert sorted(described) == sorted(struct.__name__ for struct in STRUCTS)


def test_every_text_number_and_list_has_bounds() -> None:
    """A bound that is missing would let one device fill the database."""
    unbounded: list[str] = []

    def look(kind: Any, place: str) -> None:
        match kind:
            case inspect.StrType() if kind.max_length is None:
                unbounded.append(place)
            case inspect.IntType():
                top = kind.le if kind.lt is None else kind.lt
                if kind.ge is None or top is None or top > messages.INT63:
                    unbounded.append(place)
            case inspect.VarTupleType():
                if kind.max_length is None:
                    unbounded.append(place)
                look(kind.item_type, place + "[]")
            case inspect.DictType():
                if kind.max_length is None:
                    unbounded.append(place)
                look(kind.key_type, place + " key")
                look(kind.value_type, place + " value")
            case inspect.UnionType():
                for one in kind.types:
                    look(one, place)
            case inspect.AnyType() | inspect.FloatType() | inspect.RawType():
                unbounded.append(place)
            case _:
                pass

    for struct in STRUCTS:
        info = inspect.type_info(struct)
        assert isinstance(info, inspect.StructType)
        for field in info.fields:
            look(field.type, f"{struct.__name__}.{field.name}")
    assert unbounded == []


def test_every_address_is_described() -> None:
    import asyncio

    async def routes() -> list[list[str]]:
        door = Door()
        found = [
            [f"`{method}`", f"`{path}`"]
            for path, methods in door.routes.items()
            for method in methods
        ]
        await door.stop()
        return found

    described = [row[:2] for row in table_under("Addresses")]
    assert sorted(described) == sorted(asyncio.run(routes()))


def test_every_error_is_described() -> None:
    rows = table_under("Errors")
    assert [row[:3] for row in rows] == [
        [f"`{code}`", str(status), problems.TITLES[code]]
        for code, status in messages.PROBLEM_STATUS.items()
    ]
    assert all(row[3] for row in rows), "each error says what the device does then"


LIMITS = {
    "Body of a message": f"{messages.MAX_MESSAGE_BYTES // 1024} KiB",
    "Body of a report on the wire": f"{messages.MAX_REPORT_BYTES // 1024} KiB",
    "Body of a report unpacked": f"{messages.MAX_REPORT_UNPACKED_BYTES // 1024} KiB",
    "Events in a report": str(messages.MAX_EVENTS),
    "Time for the headers to arrive": f"{connections.HEAD_SECONDS:.0f} s",
    "Headers of a request": f"{connections.MAX_HEAD_BYTES // 1024} KiB",
    "Time for a body to arrive": f"{bodies.SLOWEST_SECONDS:.0f} s",
    "Memory that a zstd frame may ask for": f"{bodies.MAX_ZSTD_WINDOW // 1024} KiB",
    "Waiting for news": f"{messages.MAX_WAIT_SECONDS} s",
    "Between two check-ins": f"{check_in.INTERVAL_SECONDS} s",
    "Age of a signature": f"{signing.OLDEST_SECONDS} s",
    "Signature ahead of the server's clock": f"{signing.FUTURE_SECONDS} s",
    "Life of a token": f"{signing.TOKEN_SECONDS} s",
    "Overlap of two keys": f"{key_change.OVERLAP.days} days",
    "Life of a code": f"{enrollment.CODE_LIFE.total_seconds() / 60:.0f} min",
    "Tries per code": str(enrollment.CODE_TRIES),
    "Wrong codes from one address": f"{enrollment.ADDRESS_FAILURES} in "
    f"{enrollment.ADDRESS_WINDOW.total_seconds() / 60:.0f} min",
    "Secret part of a code": f"{enrollment.SECRET_LENGTH * 5} bits",
    "Until a removal is known": f"{known.REFRESH_SECONDS} s",
    "Until last seen is written": f"{known.FLUSH_SECONDS:.0f} s",
}


def test_every_limit_is_described() -> None:
    assert {row[0]: row[1] for row in table_under("Limits")} == LIMITS


def test_every_reason_to_refuse_definitions_is_described() -> None:
    rows = table_under("Definitions")
    assert [row[0] for row in rows] == [f"`{code}`" for code in definitions.PROBLEMS]


def test_the_signature_is_described() -> None:
    rows = {row[0]: row[1] for row in table_under("Signatures")}
    assert rows["Covered"] == " ".join(f"`{part}`" for part in signing.COVERED)
    assert rows["`tag`"] == f"`{signing.TAG}`"


def _ids(prefix: str) -> dict[str, int]:
    return {
        name: value
        for name, value in vars(messages).items()
        if name.startswith(prefix) and isinstance(value, int)
    }


def test_every_ocsf_id_is_described() -> None:
    expected = {
        f"{name}={value}"
        for prefix in ("SEVERITY_", "SCAN_", "FINDING_", "REMEDIATION_", "STATUS_", "DISPOSITION_")
        for name, value in _ids(prefix).items()
    }
    described = {f"{row[0].strip('`')}={row[1]}" for row in table_under("OCSF ids")}
    assert described == expected
