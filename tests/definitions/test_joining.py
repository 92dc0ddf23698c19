"""Signatures joined into a few rules find the same under the same names, and cost much less."""

from __future__ import annotations

import random
import re

from hypothesis import given, settings
from hypothesis import strategies as st

from doorward.protection.definitions import joining
from doorward.protection.definitions.importers import clamav
from doorward.protection.definitions.importers.reading import Feed
from doorward_agent.engines import Hit, yara

BODY = st.binary(min_size=4, max_size=6)


def rules_of(*lines: str) -> dict[str, str]:
    feed = Feed()
    clamav.read_bodies("\n".join(lines) + "\n", "feed.ndb", feed)
    assert feed.refused == []
    return feed.rules


def engine(rules: dict[str, str]) -> yara.YaraEngine:
    return yara.YaraEngine(
        yara.compiled([(f"feed/{name}", source) for name, source in rules.items()]),
        version="1",
        timeout=5,
        window_bytes=1 << 20,
        window_overlap_bytes=1000,
    )


def told(rules: dict[str, str], content: bytes) -> list[Hit]:
    return sorted(engine(rules).scan(content), key=lambda hit: hit.rule)


@settings(max_examples=60, deadline=None)
@given(
    bodies=st.lists(BODY, min_size=1, max_size=8),
    content=st.lists(st.one_of(BODY, st.integers(0, 7)), max_size=12),
    kinds=st.lists(st.sampled_from(("0:*:{}", "0:0:{}", "0:*:{}??00", "10:*:{}")), min_size=8),
)
def test_the_same_is_found_under_the_same_names(
    bodies: list[bytes], content: list[bytes | int], kinds: list[str]
) -> None:
    lines = [
        f"Win.Trojan-{number}:{kind.format(body.hex())}"
        for number, (body, kind) in enumerate(zip(bodies, kinds, strict=False))
    ]
    held = b"".join(
        part if isinstance(part, bytes) else bodies[part % len(bodies)] for part in content
    )
    apart = rules_of(*lines)
    assert told(joining.joined(apart), held) == told(apart, held)


def test_a_thousand_signatures_become_ten_rules_that_name_each() -> None:
    chance = random.Random(5)  # noqa: S311 - protects nothing
    bodies = [chance.randbytes(16) for _ in range(1000)]
    apart = rules_of(*(f"Sig-{n}:0:*:{body.hex()}" for n, body in enumerate(bodies)))
    joined = joining.joined(apart)
    assert len(re.findall("^rule ", apart["feed.ndb"], re.MULTILINE)) == 1000
    assert len(re.findall("^rule ", joined["feed.ndb"], re.MULTILINE)) == 10
    content = b"..".join((bodies[3], bodies[99], bodies[100], bodies[999]))
    found = told(joined, content)
    assert [hit.title for hit in found] == ["Sig-100", "Sig-3", "Sig-999", "Sig-99"]
    assert found == told(apart, content)


def test_where_the_place_matters_a_rule_stays_by_itself() -> None:
    apart = rules_of(
        "Entry:1:EP+0:deadbeef", "Start:0:0:deadbeef", "One:0:*:deadbeef", "Two:0:*:cafe0102"
    )
    joined = joining.joined(apart)["feed.ndb"]
    assert joined.startswith('import "pe" rule clamav_Entry_1 ')
    assert "rule clamav_Start_2 " in joined
    assert "rule clamav_One_3 " not in joined
    assert [hit.title for hit in told({"feed.ndb": joined}, b"x\xde\xad\xbe\xef")] == ["One"]


def test_rules_from_elsewhere_are_left_word_for_word() -> None:
    source = rules_of("One:0:*:deadbeef")["feed.ndb"] + "rule b { condition: clamav_One_1 }\n"
    assert joining.joined({"rules.yar": source}) == {"rules.yar": source}
