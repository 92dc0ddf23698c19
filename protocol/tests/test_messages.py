"""What may go over the wire, and what becomes of everything else."""

import json
from typing import Any
from uuid import uuid4

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from doorward_protocol import messages
from doorward_protocol.messages import InvalidMessage, decode, decode_report, fitted, has_nul

CHECK_IN = msgspec.json.Decoder(messages.CheckIn)


BOOT = "0199e2f0-7a5c-7c1e-8f00-5a1c0d1e2f3a"


def call(**changes: Any) -> bytes:
    # One id for all: it is part of the tests' names, which must be the same in every process.
    return json.dumps({"boot_id": BOOT, "seq": 1} | changes).encode()


def holds_nul(value: Any) -> bool:
    """The slow truth that `has_nul` must tell quickly."""
    match value:
        case str():
            return "\0" in value
        case list():
            return any(holds_nul(one) for one in value)
        case dict():
            return any(holds_nul(key) or holds_nul(one) for key, one in value.items())
    return False


TRICKY = st.lists(st.sampled_from(["\0", "\\", "u0000", "\\u0000", "x", '"']), max_size=6).map(
    "".join
)
JSON = st.recursive(
    st.none() | st.integers() | TRICKY,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(TRICKY, inner, max_size=3),
)


@given(JSON)
def test_nul_is_found_wherever_it_is_and_nowhere_else(value: Any) -> None:
    assert has_nul(json.dumps(value).encode()) == holds_nul(value)


def test_a_windows_path_that_looks_like_nul_is_a_path() -> None:
    told = decode(CHECK_IN, call(protection={"state": "off", "reasons": ["C:\\u0000"]}))
    assert told.protection.reasons == ("C:\\u0000",)


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"null",
        b"[]",
        b"{}",
        call()[:-1],
        call(seq=2**63),
        call(seq=-1),
        call(seq=1.0),
        call(seq="1"),
        call(seq=True),
        call(boot_id="x"),
        call(protection={"state": "fine"}),
        call(protection={"reasons": ["x"] * 9}),
        call(protection={"reasons": ["x" * 65]}),
        call(protection={"reasons": ["\0"]}),
        call(settings={"version": 2**31}),
        call().replace(b'"seq"', b'"\\ud800": 1, "seq"'),
        call(device={"hostname": "x", "os": {"name": "l"}}).replace(b'"x"', b'"\xff"'),
        b'{"x":' * 200_000,
    ],
)
def test_what_is_not_the_message_is_refused_with_words(body: bytes) -> None:
    with pytest.raises(InvalidMessage) as refusal:
        decode(CHECK_IN, body)
    assert 0 < len(str(refusal.value)) <= 300


@given(st.binary(max_size=300))
def test_no_bytes_at_all_raise_anything_else(body: bytes) -> None:
    with pytest.raises(InvalidMessage):
        decode(CHECK_IN, body)
    with pytest.raises(InvalidMessage):
        decode_report(body)


def test_fields_of_a_later_version_are_skipped() -> None:
    assert decode(CHECK_IN, call(later={"x": [1, {}]}, number=10**40)).seq == 1


@given(st.text(st.characters(), max_size=60), st.integers(1, 40))
def test_fitted_text_can_always_be_sent(text: str, limit: int) -> None:
    sent = fitted(text, limit)
    assert len(sent) <= limit
    assert msgspec.json.decode(messages.encode(messages.SettingsError(pointer=sent, code="")))
    assert not has_nul(msgspec.json.encode(sent))
    if len(text) <= limit and "\0" not in text and not any("\ud800" <= c <= "\udfff" for c in text):
        assert sent == text


def test_a_long_path_keeps_both_its_ends() -> None:
    sent = fitted("/home/" + "x" * 9000 + "/eicar.com", messages.MAX_PATH)
    assert len(sent) == messages.MAX_PATH
    assert sent.startswith("/home/")
    assert sent.endswith("/eicar.com")


def test_messages_cannot_be_changed_after_they_were_made() -> None:
    for kind in vars(messages).values():
        if (
            isinstance(kind, type)
            and issubclass(kind, msgspec.Struct)
            and kind is not msgspec.Struct
        ):
            assert kind.__struct_config__.frozen, kind


@pytest.mark.parametrize("kind", messages.EVENT_CLASSES)
def test_an_event_comes_back_as_it_was_sent(kind: type[Any]) -> None:
    file = messages.File(path="/x")
    metadata = messages.Metadata(uid=uuid4(), sequence=3)
    fields: dict[type[Any], dict[str, Any]] = {
        messages.ScanActivity: {"activity_id": 1, "scan": messages.ScanInfo(uid=uuid4())},
        messages.DetectionFinding: {
            "finding_info": messages.FindingInfo(
                uid=uuid4(), title="t", analytic=messages.Analytic(uid="r")
            ),
            "evidences": (messages.Evidence(file=file),),
            "disposition_id": 3,
            "severity_id": 4,
        },
        messages.FileRemediation: {"activity_id": 1, "file": file, "disposition_id": 3},
    }
    event = kind(metadata=metadata, time=5, **fields[kind])
    body = messages.encode(messages.Report(events=(event,)))
    assert json.loads(body)["events"][0]["class_uid"] == kind.class_uid
    assert decode_report(body) == ((event,), ())


def test_the_limits_of_a_report_hold_at_their_edge() -> None:
    empty = b"{}"
    _, bad = decode_report(b'{"events":[' + b",".join([empty] * messages.MAX_EVENTS) + b"]}")
    assert [one.index for one in bad] == list(range(messages.MAX_EVENTS))
    with pytest.raises(InvalidMessage):
        decode_report(b'{"events":[' + b",".join([empty] * (messages.MAX_EVENTS + 1)) + b"]}")


def test_every_error_has_its_status() -> None:
    from typing import get_args

    assert set(messages.PROBLEM_STATUS) == set(get_args(messages.ErrorCode))
    assert all(400 <= status < 600 for status in messages.PROBLEM_STATUS.values())
