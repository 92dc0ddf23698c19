"""What others publish is read as it is meant, or refused with its line and a reason."""

from __future__ import annotations

import hashlib
import json
import time
from io import StringIO
from pathlib import Path
from typing import Any

import pytest
import yara_x
from django.core.management import call_command
from hypothesis import given
from hypothesis import strategies as st

from doorward.protection.definitions import importing, trial, vetting
from doorward.protection.definitions.importers import clamav, hash_lists
from doorward.protection.definitions.importers.reading import Feed
from doorward.protection.definitions.importers.yara_source import (
    Span,
    Tokens,
    rules_in,
    without,
)

ONE = hashlib.sha256(b"one").hexdigest()
TWO = hashlib.sha256(b"two").hexdigest()


def hashes_of(text: str) -> Feed:
    feed = Feed()
    hash_lists.read(text, "list", feed)
    return feed


def test_a_file_of_sixty_thousand_rules_is_read_in_seconds() -> None:
    rule = 'rule r%d {\n  strings: $a = "needle%07d"\n  condition: $a\n}\n'
    source = "".join(rule % (number, number) for number in range(60_000))
    began = time.process_time()
    found = rules_in(source)
    # One and a half on two slow cores; each rule's line counted anew takes minutes.
    assert time.process_time() - began < 10
    assert (found[-1].name, found[-1].line, found[-1].last_line) == ("r59999", 239_997, 240_000)


@pytest.mark.parametrize(
    ("text", "labels"),
    [
        (f"{ONE}\n{TWO.upper()}\n", ["Known malicious file", "Known malicious file"]),
        (f"# feed\n\n{ONE}; Emotet\n{TWO};Qakbot loader\n", ["Emotet", "Qakbot loader"]),
        (f"{ONE}  invoice.exe\n{TWO} *b.dll\n", ["invoice.exe", "b.dll"]),
        (f'first_seen,sha256_hash,signature\n2026,"{ONE}",Emotet\n2026,{TWO},\n', ["Emotet", ""]),
        (
            f'# "first_seen","sha256_hash","signature"\n"2026","{ONE}","A"\n"x","{TWO}","B"',
            ["A", "B"],
        ),
        (f"\ufeff{ONE}"[1:] + f"\r\n{TWO},Family\r\n", ["Known malicious file", "Family"]),
    ],
)
def test_hash_lists_of_every_kind_are_read(text: str, labels: list[str]) -> None:
    feed = hashes_of(text)
    assert feed.refused == []
    assert set(feed.hashes) == {bytes.fromhex(ONE), bytes.fromhex(TWO)}
    said = [feed.hashes[bytes.fromhex(each)] for each in (ONE, TWO)]
    assert said == [label or "Known malicious file" for label in labels]


def test_what_is_no_sha256_is_refused_with_its_line() -> None:
    feed = hashes_of(
        f"{ONE}\n{hashlib.md5(b'', usedforsecurity=False).hexdigest()}\nhello world\n"
        f"{hash_lists.EMPTY}\n{ONE[:-1]}g\n"
    )
    assert [(each.line, each.why.split(":")[0]) for each in feed.refused] == [
        (2, "MD5"),
        (3, "no hash"),
        (4, "the hash of an empty file"),
        (5, "no hash"),
    ]
    assert len(feed.hashes) == 1


def test_a_csv_without_such_a_column_is_refused() -> None:
    feed = hashes_of("name,md5\nEmotet,d41d8cd98f00b204e9800998ecf8427e\n")
    assert "no column" in feed.refused[0].why
    assert feed.hashes == {}


def bodies_of(*lines: str) -> Feed:
    feed = Feed()
    clamav.read_bodies("\n".join(lines) + "\n", "feed.ndb", feed)
    return feed


def hits(feed: Feed, content: bytes) -> list[str]:
    rules = yara_x.compile(feed.rules["feed.ndb"])
    return [rule.identifier for rule in rules.scan(content).matching_rules]


@pytest.mark.parametrize(
    ("line", "hit", "miss"),
    [
        ("Any:0:*:deadbeefcafe", b"..\xde\xad\xbe\xef\xca\xfe", b"\xde\xad\xbe\xef"),
        ("At:0:4:deadbeef", b"1234\xde\xad\xbe\xef", b"12345\xde\xad\xbe\xef"),
        ("Shift:0:4,2:deadbeef", b"123456\xde\xad\xbe\xef", b"1234567\xde\xad\xbe\xef"),
        ("End:0:EOF-4:deadbeef", b"xx\xde\xad\xbe\xef", b"xx\xde\xad\xbe\xefx"),
        ("Wild:0:*:deadbeef??00{2}aabbccdd", b"\xde\xad\xbe\xefx\0yz\xaa\xbb\xcc\xdd", b"\xde\xad"),
        (
            "Gap:0:*:deadbeef*aabbccdd",
            b"\xde\xad\xbe\xef" + b"-" * 900 + b"\xaa\xbb\xcc\xdd",
            b"\xaa\xbb\xcc\xdd\xde\xad\xbe\xef",
        ),
        (
            "Choice:0:*:deadbeef(00|1122)33",
            b"\xde\xad\xbe\xef\x11\x22\x33",
            b"\xde\xad\xbe\xef\x11\x33",
        ),
        ("Not:0:*:deadbeef!(00)11", b"\xde\xad\xbe\xef\x05\x11", b"\xde\xad\xbe\xef\x00\x11"),
        ("Pdf:10:*:deadbeef", b"%PDF\xde\xad\xbe\xef", b"....\xde\xad\xbe\xef"),
    ],
)
def test_a_clamav_body_finds_what_it_describes(line: str, hit: bytes, miss: bytes) -> None:
    feed = bodies_of(line)
    assert feed.refused == []
    assert hits(feed, hit)
    assert not hits(feed, miss)


@pytest.mark.parametrize(
    ("line", "why"),
    [
        ("Html:3:*:deadbeef", "normalizes"),
        ("Mail:4:*:deadbeef", "takes apart"),
        ("New:99:*:deadbeef", "not known here"),
        ("Short:0:*:aabb*cc", "fixed bytes"),
        ("Open:0:*:deadbeef*", "begins or ends"),
        ("Odd:0:*:deadbeef(B)", "not known here"),
        ("Version:0:VI:deadbeef", "program's file type"),
        ("Few:0", "not name:target"),
        ("Long:0:*:" + "aa" * 10_000, "characters"),
    ],
)
def test_what_does_not_convert_is_refused_with_line_and_reason(line: str, why: str) -> None:
    feed = bodies_of("# comment", "Good:0:*:deadbeef", line)
    assert [(each.file, each.line) for each in feed.refused] == [("feed.ndb", 3)]
    assert why in feed.refused[0].why
    assert hits(feed, b"\xde\xad\xbe\xef") == ["clamav_Good_2"]


def test_a_rule_made_of_a_body_keeps_its_line_so_that_vetting_can_name_it() -> None:
    feed = bodies_of("Good:1:EP+0:deadbeef", "", "Bad:6:S0+4:deadbeef")
    assert [(each.line, each.name) for each in rules_in(feed.rules["feed.ndb"])] == [
        (1, "clamav_Good_1"),
        (3, "clamav_Bad_3"),
    ]


SOURCE = """import "pe"
// rule commented { condition: true }
private rule first : tag { meta: text = "} rule no {" condition: 1 / 1 == 1 }
/* rule also_commented { */
rule second
{
    strings:
        $a = /a{2}\\/ [}"]/ // }
        $b = { AA ( BB | CC ) /* } */ }
    condition:
        any of them or pe.is_pe
}
global rule third { condition: "a" matches /}/ }
"""


def test_rules_are_told_apart_whatever_is_in_them() -> None:
    found = rules_in(SOURCE)
    assert [(each.name, each.line, each.last_line, each.private) for each in found] == [
        ("first", 3, 3, True),
        ("second", 5, 12, False),
        ("third", 13, 13, False),
    ]
    left = without(SOURCE, [found[1]])
    assert [(each.name, each.line) for each in rules_in(left)] == [("first", 3), ("third", 13)]
    assert left.count("\n") == SOURCE.count("\n")


HOSTILE = {
    "comments that never end": "/*",
    "expressions that never end": "/[x][x]",
    "slashes put out of force": "=/\\/",
    "quotes put out of force": '"\\"',
    "three quotes": '"""\\',
    "rules without an end": "rule a ",
    "modifiers": "private global rule ",
    "rules": "rule a{}",
    "braces": "rule a {{",
    "dividing": "matches / 1",
    "words": "aaaaaaaa",
}


@pytest.mark.parametrize("part", HOSTILE.values(), ids=HOSTILE)
@pytest.mark.parametrize("lines", [1, 100])
def test_a_hostile_source_is_work_as_it_is_long(part: str, lines: int) -> None:
    """Counted, not timed: 480 kB took minutes where signs were read again and again."""
    source = "\n".join([part * (480_000 // len(part) // lines)] * lines)
    tokens = Tokens(source)
    for _token in tokens:
        pass
    assert tokens.looked_at <= 3 * len(source)
    spans = rules_in(source)
    assert len(without(source, spans)) == len(source)


@given(st.text(alphabet='/*\\"\n[]{}=ra :', max_size=300))
def test_whatever_a_source_is_no_sign_is_read_again_and_again(source: str) -> None:
    tokens = Tokens(source)
    at = 0
    for _kind, _text, begin, end in tokens:
        assert at <= begin < end
        at = end
    assert tokens.looked_at <= 4 * len(source)


SMUGGLED = '''rule bait {
  meta:
    x = """
} rule evil { condition: true } /*"""
    y = "*/ rule pad { //"
  strings: $a = "only in one clean file"
  condition: $a
}
rule good { strings: $a = "something bad" condition: $a }
'''


def test_no_rule_hides_in_a_text_to_come_alive_when_its_rule_is_refused(tmp_path: Path) -> None:
    """Blanked out up to the first brace, the rule would have left another that nobody had tried."""
    for number in range(200):
        (tmp_path / f"clean-{number}").write_text("a clean file")
    (tmp_path / "one").write_text("only in one clean file")
    vetted = vetting.vet(Feed(rules={"feed.yar": SMUGGLED}), clean=[tmp_path])
    left = yara_x.compile(vetted.rules["feed.yar"])
    assert [rule.identifier for rule in left] == ["good"]
    assert [refusal.name for refusal in vetted.refused] == ["bait"]


@pytest.mark.parametrize(
    "source",
    [
        'import "pe" rule a { condition: pe.imports(/a}/, /b/) > 0 }',
        'rule a { condition: for any s in ("}", "b") : (s == "a") }',
        "rule a { strings: $a = { 4D /* } */ 5A // }\n } condition: $a }",
        "private global rule a : tag other {condition: true} global private rule b {condition: a}",
        'rule a { meta: x = """ \\" }\n""" condition: true } /* /* */ rule b { condition: a }',
        "// \r rule no { condition: true }\nrule a { condition: true }",
        'rule a { strings: $a = /[{"]x\\/}/is condition: $a } // "',
    ],
)
def test_rules_are_told_apart_as_the_engine_does(source: str) -> None:
    theirs = [rule.identifier for rule in yara_x.compile(source)]
    assert [span.name for span in rules_in(source)] == theirs


def test_what_the_engine_tells_apart_otherwise_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(trial, "rules_in", lambda source: rules_in(source)[:1])
    request = {
        "sources": {"a.yar": "rule a {condition: false} rule b {condition: false}"},
        "careful": False,
        "clean": [str(tmp_path)],
        "most_clean_bytes": 1,
    }
    verdict = trial.Trial(request).run()
    assert verdict["sources"] == {}
    assert verdict["refused"] == [
        ["a.yar", 0, "", "its rules can't be told apart as the engine does"]
    ]


def test_rules_that_are_each_quick_and_together_slow_are_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Hundreds of rules of 90 ms would bring every scan of every device to a halt."""
    files = {f"{name}.yar": f"rule {name} {{condition: false}}" for name in ("few", "many", "more")}
    takes = {"few": 0.1, "many": 0.6, "more": 0.5}

    def seconds(rules: yara_x.Rules, _samples: list[bytes]) -> float:
        found = [rule.identifier for rule in rules]
        # The halving before asks about each rule alone: there each of them is quick.
        together = len(found) > 1 or stage
        return sum(takes[name] for name in found) if together else 0.0

    stage: list[str] = []
    monkeypatch.setattr(trial, "_seconds", seconds)
    real = trial.Trial._time_all

    def time_all(self: trial.Trial, samples: list[bytes]) -> None:
        stage.append("all")
        real(self, samples)

    monkeypatch.setattr(trial.Trial, "_time_all", time_all)
    request = {
        "sources": files,
        "careful": False,
        "clean": [str(tmp_path)],
        "most_clean_bytes": 1,
    }
    verdict = trial.Trial(request).run()
    assert sorted(verdict["sources"]) == ["few.yar", "more.yar"]
    why = "its rules together take 0.6 s for 3 MiB: import fewer"
    assert verdict["refused"] == [["many.yar", 0, "", why]]


def test_many_rules_of_one_file_are_refused_in_one_go(monkeypatch: pytest.MonkeyPatch) -> None:
    read: list[int] = []

    def counted(source: str) -> list[Span]:
        read.append(len(source))
        return rules_in(source)

    monkeypatch.setattr(vetting, "rules_in", counted)
    rules = {"a.yar": "".join(f"rule r{n} {{condition: true}}\n" for n in range(500))}
    verdict: dict[str, Any] = {
        "engine": "",
        "clean": 1000,
        "sources": rules,
        "refused": [],
        "keys": [],
        "hits": {f"a.yar\0r{number}": ["/bin/true"] for number in range(499)},
    }
    monkeypatch.setattr(vetting, "_tried", lambda *_args, **_more: verdict)
    vetted = vetting.vet(Feed(rules=rules))
    assert len(vetted.refused) == 499
    assert [span.name for span in rules_in(vetted.rules["a.yar"])] == ["r499"]
    assert len(read) == 3


def test_a_folder_is_read_without_its_links_and_hidden_files(tmp_path: Path) -> None:
    (tmp_path / "feed").mkdir()
    (tmp_path / "feed" / "a.yar").write_text("rule a { condition: false }")
    (tmp_path / "feed" / ".git").mkdir()
    (tmp_path / "feed" / ".git" / "b.yar").write_text("rule b { condition: false }")
    (tmp_path / "outside.yar").write_text("rule c { condition: false }")
    (tmp_path / "feed" / "link.yar").symlink_to(tmp_path / "outside.yar")
    (tmp_path / "feed" / "binary.yar").write_bytes(b"\xff\xfe\x00")
    (tmp_path / "feed" / "program.exe").write_bytes(b"MZ")
    feed = importing.read(tmp_path / "feed")
    assert set(feed.rules) == {"a.yar"}
    assert {each.file: each.why for each in feed.refused} == {
        "binary.yar": "no UTF-8 at byte 0",
        "program.exe": "of no kind that can be read; --kind says which it is",
    }
    # A hidden folder stands once for all that is in it.
    assert {each.file: each.why for each in feed.passed_over} == {
        ".git": "its name begins with a dot",
        "link.yar": "it is a link, which may lead elsewhere",
    }
    assert len(feed.passed_over) == 2


def test_a_feed_with_only_a_hidden_file_is_refused_and_says_why(tmp_path: Path) -> None:
    (tmp_path / ".rules.yar").write_text("rule a { condition: false }")
    with pytest.raises(vetting.VettingFailed, match=r"\.rules\.yar: its name begins with a dot"):
        importing.read(tmp_path)


def test_an_import_says_what_it_did_not_open(tmp_path: Path) -> None:
    (tmp_path / "a.yar").write_text("rule a { condition: false }")
    (tmp_path / ".hidden.yar").write_text("rule b { condition: false }")
    clean = tmp_path.parent / f"{tmp_path.name}-clean"
    clean.mkdir()
    (clean / "file").write_text("nothing in it")
    told, as_json = StringIO(), StringIO()
    call_command("import_definitions", tmp_path, "--try", "--clean", clean, stdout=told)
    assert "not opened .hidden.yar: its name begins with a dot" in told.getvalue()
    call_command(
        "import_definitions", tmp_path, "--try", "--json", "--clean", clean, stdout=as_json
    )
    assert json.loads(as_json.getvalue())["not_opened"] == [
        {"file": ".hidden.yar", "why": "its name begins with a dot"}
    ]


def test_a_folder_of_nothing_is_refused(tmp_path: Path) -> None:
    with pytest.raises(vetting.VettingFailed, match="nothing there"):
        importing.read(tmp_path)


def test_a_rule_that_takes_too_long_is_refused(tmp_path: Path) -> None:
    slow = """rule slow {
      condition:
        for any i in (0..500000) : ( for any j in (0..20) : (
          uint8(i) == 251 and uint8(i + j) == 252 and uint8(i + j + 1) == 253
          and uint8(i + j + 2) == 254 and uint8(i + j + 3) == 255 ) )
    }
    rule quick { strings: $a = "quick brown snail" condition: $a }
    """
    (tmp_path / "letter").write_text("Dear Alice")
    vetted = vetting.vet(Feed(rules={"mixed.yar": slow}), clean=[tmp_path])
    assert [(each.name, each.line) for each in vetted.refused] == [("slow", 1)]
    assert "100 ms" in vetted.refused[0].why
    assert vetted.rule_count == 1


def test_what_hangs_a_trial_is_given_up(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "letter").write_text("Dear Alice")
    monkeypatch.setattr(vetting, "TRIES", 3)
    with pytest.raises(vetting.VettingFailed, match=r"broke or hung|too many"):
        vetting.vet(
            Feed(rules={"a.yar": "rule a { condition: false }"}),
            clean=[tmp_path],
            silent_seconds=0.0,
        )
