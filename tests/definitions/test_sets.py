"""Sets: what changes little costs little, what is bad never becomes active, nothing is lost by
being killed."""

from __future__ import annotations

import hashlib
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest
from tests.definitions.workshop import Device, Workshop, sha256

from doorward.protection.definitions import importing, repository, sets, sources, vetting
from doorward.protection.models import DefinitionSet, DefinitionSource
from doorward_agent import definitions, scan
from doorward_agent.config import AgentConfig
from doorward_agent.definitions.build import eicar

SIZE_OF_500_HASHES = 30_000


def md5(content: bytes) -> str:
    return hashlib.md5(content, usedforsecurity=False).hexdigest()


def sha1(content: bytes) -> str:
    return hashlib.sha1(content, usedforsecurity=False).hexdigest()


def found_in(device: Device, folder: Path) -> dict[str, scan.Detection]:
    with scan.run([folder], device.config) as run:
        return {Path(each.path).name: each for each in run}


def test_500_new_hashes_cost_at_most_30_kb(olga: Workshop, laptop: Device) -> None:
    old = [f"old {number}" for number in range(5000)]
    laptop.update(olga.hashes(old).number)
    before = laptop.files.bytes
    new = [f"new {number}" for number in range(500)]
    made = olga.hashes(old + new)
    laptop.update(made.number)
    cost = laptop.files.bytes - before
    assert laptop.number == made.number
    assert 500 * 32 < cost <= SIZE_OF_500_HASHES, f"{cost} bytes"
    # Both the old and the new ones are looked up.
    lists = definitions.in_force(laptop.config.state_dir).hash_files
    assert {Path(path).name for path in lists} == {
        "base.hashes",
        "add-01.hashes",
        "known.hashes",
    }


def test_a_hash_that_was_taken_out_is_not_found_any_more(
    olga: Workshop, laptop: Device, tmp_path: Path
) -> None:
    home = tmp_path / "home"
    home.mkdir()
    for text in ("stays", "leaves"):
        (home / text).write_text(text)
    laptop.update(olga.hashes(["stays", "leaves"]).number)
    assert set(found_in(laptop, home)) == {"stays", "leaves"}
    laptop.update(olga.hashes(["stays"]).number)
    assert set(found_in(laptop, home)) == {"stays"}


def test_many_small_additions_are_joined_into_a_new_base(olga: Workshop, laptop: Device) -> None:
    known = ["malicious"]
    made = olga.hashes(known)
    for number in range(sets.MOST_ADDITIONS + 1):
        known.append(f"malicious {number}")
        made = olga.hashes(known)
    laptop.update(made.number)
    lists = definitions.in_force(laptop.config.state_dir).hash_files
    assert {Path(path).name for path in lists} == {"base.hashes", "known.hashes"}


def test_a_new_set_is_used_by_the_next_scan_also_for_files_known_to_be_clean(
    olga: Workshop, laptop: Device, tmp_path: Path
) -> None:
    home = tmp_path / "home"
    home.mkdir()
    file = home / "invoice.txt"
    file.write_text("a new threat")
    os.utime(file, (1, 1))
    assert found_in(laptop, home) == {}
    laptop.update(olga.hashes(["a new threat"]).number)
    found = found_in(laptop, home)["invoice.txt"]
    assert (found.rule, found.title) == ("DW-HASH", "Family 12")


def test_the_bundled_rules_stay_under_every_set(
    olga: Workshop, laptop: Device, tmp_path: Path
) -> None:
    laptop.update(olga.hashes(["one"]).number)
    home = tmp_path / "home"
    home.mkdir()
    (home / "test.com").write_bytes(eicar())
    assert set(found_in(laptop, home)) == {"test.com"}


def test_files_known_by_size_and_md5_or_sha1_are_found(
    olga: Workshop, laptop: Device, tmp_path: Path
) -> None:
    texts = {"by-md5": b"known by MD5", "by-sha1": b"known by SHA-1", "other": b"known by MD6"}
    feed = olga.folder / "feed.hdb"
    feed.write_text(
        f"{md5(texts['by-md5'])}:12:Win.Test.Md5-1234-0\n"
        f"{sha1(texts['by-sha1'])}:14:Win.Test.Sha1-1\n"
        f"{md5(b'x')}:*:Win.Test.AnySize\n"
        "nonsense\n"
    )
    imported = olga.imports(feed, "clamav")
    assert [(each.line, each.name) for each in imported.vetted.refused] == [
        (3, "Win.Test.AnySize"),
        (4, "nonsense"),
    ]
    assert imported.made is not None
    laptop.update(imported.made.number)
    home = tmp_path / "home"
    home.mkdir()
    for name, text in texts.items():
        (home / name).write_bytes(text)
    found = found_in(laptop, home)
    assert {name: each.title for name, each in found.items()} == {
        "by-md5": "Win.Test.Md5",
        "by-sha1": "Win.Test.Sha1",
    }


RULE = 'rule {name} {{ meta: author = "Alice" strings: $a = "{text}" condition: $a }}\n'


def test_a_folder_of_1000_rules_is_imported_with_a_report(
    olga: Workshop, laptop: Device, tmp_path: Path
) -> None:
    folder = olga.folder / "rules"
    for number in range(1000):
        path = folder / f"family{number // 100}" / f"Win32.Family.{number}.yara"
        path.parent.mkdir(parents=True, exist_ok=True)
        text = RULE.format(name=f"Win32_Family_{number}", text=f"payload number {number:04}")
        path.write_text(f"// License: none\n{text}")
    (folder / "broken.yara").write_text(
        RULE.format(name="good_beside_bad", text="good beside bad")
        + "rule bad {\n  strings: $a = /(/\n  condition: $a\n}\n"
        + "rule leans_on_bad { condition: bad }\n"
    )
    (folder / "slow.yara").write_text("rule slow { strings: $a = { 00 } condition: $a }\n")
    (folder / "clean.yara").write_text(RULE.format(name="hits_letters", text="letter 3."))
    (folder / "includes.yara").write_text('include "/etc/passwd"\n')
    (folder / "signatures.ldb").write_text("Logical;Engine:1-2,Target:0;0;00\n")
    (folder / "README.md").write_text("# Rules\n")
    clean = olga.clean()
    for number in range(200):
        (clean / f"note-{number}").write_text(f"note {number}")
    imported = olga.imports(folder, "feed")
    assert imported.vetted.rule_count == 1001
    assert imported.vetted.clean_files == 210
    refused = {(each.file, each.line, each.name): each.why for each in imported.vetted.refused}
    whys = {place[:1] + place[2:]: why for place, why in refused.items()}
    assert set(whys) == {
        ("broken.yara", "bad"),
        ("broken.yara", "leans_on_bad"),
        ("slow.yara", "slow"),
        ("clean.yara", "hits_letters"),
        ("includes.yara", ""),
        ("signatures.ldb", ""),
    }
    assert "invalid regular expression" in whys["broken.yara", "bad"]
    assert refused["broken.yara", 3, "bad"]
    assert "slow pattern" in whys["slow.yara", "slow"]
    assert "hits 1 of 210 clean files" in whys["clean.yara", "hits_letters"]
    assert imported.made is not None
    laptop.update(imported.made.number)
    home = tmp_path / "home"
    home.mkdir()
    (home / "sample").write_text("here is payload number 0777 indeed")
    (home / "letter").write_text("Dear Alice, this is letter 3.")
    found = found_in(laptop, home)
    assert {name: each.title for name, each in found.items()} == {"sample": "Win32_Family_777"}
    # Author and license stay with the rules.
    folder_in_force = definitions.in_force(laptop.config.state_dir).folder
    text = Path(folder_in_force, "feed.rules").read_text()
    assert text.count("Alice") == 1001
    assert "License: none" in text


def test_a_bad_set_never_becomes_active_on_the_server(olga: Workshop) -> None:
    good = olga.hashes(["one"])
    assert olga.rule("rule broken {", name="bad").made is None
    with pytest.raises(vetting.VettingFailed, match="clean files"):
        olga.rule('rule letters { strings: $a = "Dear Alice" condition: $a }', name="bad")
    assert list(DefinitionSet.objects.values_list("number", flat=True)) == [good.number]
    assert list(DefinitionSource.objects.values_list("name", flat=True)) == ["list"]


def test_rules_that_hit_clean_files_may_only_make_suspicious(
    olga: Workshop, laptop: Device, tmp_path: Path
) -> None:
    clean = olga.clean()
    for number in range(20):
        (clean / f"note-{number}").write_text(f"note {number}")
    source = RULE.format(name="odd_letters", text="this is letter 3")
    with pytest.raises(vetting.VettingFailed, match="--suspicious"):
        olga.rule(source, name="odd")
    made = olga.rule(source, name="odd", suspicious=True).made
    assert made is not None
    laptop.update(made.number)
    home = tmp_path / "home"
    home.mkdir()
    (home / "letter").write_text("this is letter 3")
    found = found_in(laptop, home)["letter"]
    assert (found.kind, found.severity) == ("suspicious", "low")


@pytest.mark.parametrize(
    ("source", "code"),
    [
        ("rule broken { condition: nowhere }", "not-compiling"),
        ("rule everything { condition: filesize > 100 }", "hits-clean"),
        (
            "global rule nothing { condition: false }",
            # Global rules hold in their own file alone, so that this one harms nobody.
            "",
        ),
    ],
)
def test_a_bad_set_never_becomes_active_on_a_device(
    olga: Workshop, laptop: Device, monkeypatch: pytest.MonkeyPatch, source: str, code: str
) -> None:
    good = olga.hashes(["one"])
    laptop.update(good.number)

    def careless(feed: object, **more: object) -> vetting.Vetted:
        return vetting.Vetted(rules={"bad.yar": source}, rule_count=1)

    monkeypatch.setattr(vetting, "vet", careless)
    bad = olga.rule(source, name="bad").made
    assert bad is not None
    if not code:
        assert laptop.update(bad.number).changed
        return
    refused = laptop.refusal(bad.number)
    assert (refused.code, refused.number) == (code, bad.number)
    assert laptop.number == good.number


def test_n13_a_set_that_needs_another_engine_or_brings_a_program_is_refused(
    olga: Workshop, laptop: Device, monkeypatch: pytest.MonkeyPatch
) -> None:
    good = olga.hashes(["one"])
    laptop.update(good.number)
    monkeypatch.setattr(sets, "_least_engine", lambda: "999.0")
    newer = olga.hashes(["one", "two"])
    refused = laptop.refusal(newer.number)
    assert (refused.code, laptop.number) == ("other-engine", good.number)
    monkeypatch.undo()
    monkeypatch.setattr(sets, "HASHES", "program")
    with_program = olga.hashes(["three"])
    assert laptop.refusal(with_program.number).code == "unknown-part"
    assert laptop.number == good.number


def test_a_download_that_broke_off_goes_on_where_it_stopped(olga: Workshop, laptop: Device) -> None:
    from doorward_agent import link

    made = olga.hashes([f"malicious {number}" for number in range(3000)])
    laptop.files.breaks_after = 50_000
    with pytest.raises(link.ServerUnreachable):
        laptop.update(made.number)
    laptop.files.breaks_after = None
    laptop.files.asked.clear()
    laptop.update()
    parts = [name for name in laptop.files.asked if name.startswith("parts/")]
    assert len(parts) == 1
    assert " from 4" in parts[0], "it asks for what is missing only"
    assert laptop.number == made.number


KILLED = """
import os, pathlib, signal, sys
import django
django.setup()
sys.path.insert(0, sys.argv[5])
from tests.definitions.workshop import Device
state, folder, wanted, at = sys.argv[1:5]
device = Device.at(pathlib.Path(state), pathlib.Path(folder))
from doorward_agent import upkeep
upkeep.hear(device.db, int(wanted), None)
left = int(at)
def watch(event, words):
    global left
    writes = event in {"os.rename", "os.remove", "os.mkdir", "os.rmdir"} or (
        event == "open" and isinstance(words[1], str) and set(words[1]) & set("wax+")
    )
    if writes and "/definitions/" in str(words[0]):
        left -= 1
        if left == 0:
            os.kill(os.getpid(), signal.SIGKILL)
sys.addaudithook(watch)
device.update()
"""


@pytest.mark.parametrize("stride", [11, pytest.param(2, marks=pytest.mark.slow)])
def test_d_kill_9_at_every_step_of_an_update_leaves_a_whole_set_in_force(
    olga: Workshop, laptop: Device, stride: int
) -> None:
    first = olga.hashes(["one"])
    laptop.update(first.number)
    second = olga.hashes(["one", "two"])
    laptop.db.close()
    seen = set()
    step, done = 1, False
    while not done:
        root = Path(__file__).parents[2]
        killed = subprocess.run(
            [
                *(sys.executable, "-c", KILLED, str(laptop.config.state_dir)),
                *(str(repository.published()), str(second.number), str(step), str(root)),
            ],
            capture_output=True,
            text=True,
            env={**os.environ, "DJANGO_SETTINGS_MODULE": "doorward.settings"},
            check=False,
        )
        done = killed.returncode == 0
        assert killed.returncode in {0, -signal.SIGKILL}, killed.stderr
        held = definitions.in_force(laptop.config.state_dir)
        definitions.verify(held)
        seen.add(held.version)
        step += stride
    assert len(seen) == 2, "the former, then the new one, and nothing between"
    assert step > 20, "it was killed at many places"
    left = list((laptop.config.state_dir / "definitions" / "sets").glob(".new-*"))
    assert left == []


def test_what_was_imported_under_a_name_is_replaced_and_removed_by_it(olga: Workshop) -> None:
    olga.hashes(["one"], name="mine")
    olga.hashes(["two"], name="mine")
    assert DefinitionSource.objects.get().hashes == 1
    importing.remove("mine", olga.signer(), by="olga", now=repository.moment())
    assert not DefinitionSource.objects.exists()
    with pytest.raises(sources.SourceRefused):
        importing.remove("mine", olga.signer(), by="olga", now=repository.moment())


def test_a_rule_that_hangs_the_engine_is_refused_and_the_rest_is_taken(
    olga: Workshop, monkeypatch: pytest.MonkeyPatch
) -> None:
    from doorward.protection.definitions.importers.reading import Feed

    feed = Feed(rules={"good.yar": RULE.format(name="good", text="good one"), "bad.yar": ""})
    asked = []

    def once(request: dict[str, object], **more: object) -> object:
        asked.append(request)
        left = request["sources"]
        assert isinstance(left, dict)
        if "bad.yar" in left:
            return None, "compile bad.yar", "bad.yar" if request["careful"] else ""
        return real(request, **more)  # type: ignore[arg-type]  # passed on

    real = vetting._once
    monkeypatch.setattr(vetting, "_once", once)
    vetted = vetting.vet(feed, clean=[olga.clean()])
    assert set(vetted.rules) == {"good.yar"}
    assert [(each.file, each.why) for each in vetted.refused] == [
        ("bad.yar", "the engine breaks or hangs on it")
    ]
    assert len(asked) == 3


def test_the_hash_of_a_clean_file_is_refused(olga: Workshop) -> None:
    letter = (olga.clean() / "letter-3").read_text()
    path = olga.folder / "feed.txt"
    path.write_text(f"{sha256(letter)}\n{sha256('malicious')}\n")
    vetted = olga.imports(path, "feed").vetted
    assert len(vetted.hashes) == 1
    assert [each.why for each in vetted.refused] == ["the hash of a clean file"]


def test_an_agent_without_a_set_scans_by_the_bundled_one(tmp_path: Path) -> None:
    config = AgentConfig(state_dir=tmp_path)
    assert definitions.in_force(config.state_dir) == definitions.current()
