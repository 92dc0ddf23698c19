"""The operator's commands about definitions: what they do, and how they refuse and lose nothing."""

from __future__ import annotations

import getpass
import hashlib
import json
from dataclasses import dataclass
from io import StringIO
from pathlib import Path
from typing import Any

import pytest
from django.core.management import call_command
from django.core.management.base import CommandError

from doorward.protection.definitions import repository
from doorward.protection.models import DefinitionSet, DefinitionSource

pytestmark = pytest.mark.django_db

PASSPHRASE = "correct horse battery staple"
NEVER_TYPED = "another horse, quite another"
NO_KEYS = "There are no keys yet: `definitions-keys make FOLDER` makes them."


def doorward(*words: str | Path) -> str:
    """Run a command as it is typed; what it prints. Raises CommandError as it would end."""
    name, *rest = map(str, words)
    said = StringIO()
    call_command(name.replace("-", "_"), *rest, stdout=said)
    return said.getvalue()


@dataclass(frozen=True)
class Olga:
    """The operator, with media of her own beside the server."""

    media: Path
    data: Path

    @property
    def keys(self) -> Path:
        return self.media / "keys"

    def writes(self, name: str, text: str | bytes) -> Path:
        path = self.media / name
        path.write_bytes(text.encode() if isinstance(text, str) else text)
        return path

    @property
    def secret(self) -> tuple[str | Path, ...]:
        return "--passphrase-file", self.writes("passphrase", PASSPHRASE + "\n")

    @property
    def signing(self) -> tuple[str | Path, ...]:
        return "--keys", self.keys, *self.secret

    def makes_keys(self) -> str:
        return doorward("definitions-keys", "make", self.keys, *self.secret)

    def lists(self, *texts: str, name: str = "feed") -> Path:
        hashes = (hashlib.sha256(text.encode()).hexdigest() for text in texts)
        return self.writes(f"{name}.txt", "".join(f"{each}; Family\n" for each in hashes))

    def imports(self, path: Path, *words: str | Path) -> str:
        clean = self.media / "clean"
        clean.mkdir(exist_ok=True)
        (clean / "letter").write_text("Dear Alice")
        return doorward("import-definitions", path, "--clean", clean, *words)

    def everything(self) -> object:
        """All that a refused command must leave as it was."""
        files = {
            path: path.read_bytes()
            for folder in (self.keys, self.data)
            for path in folder.rglob("*")
            if path.is_file()
        }
        return (
            files,
            list(DefinitionSet.objects.order_by("pk").values()),
            list(DefinitionSource.objects.order_by("pk").values()),
        )


@pytest.fixture
def media(tmp_path_factory: pytest.TempPathFactory, tmp_path: Path, settings: Any) -> Olga:
    """Olga before she made any key; her media are no folder of the server's."""
    settings.DATA = tmp_path / "data"
    settings.DATA.mkdir()
    return Olga(tmp_path_factory.mktemp("media"), settings.DATA)


@pytest.fixture
def olga(media: Olga) -> Olga:
    """Olga with her keys."""
    media.makes_keys()
    return media


def key_of(role: str) -> str:
    """The first key of a role as `show` begins it."""
    shown = doorward("definitions-keys", "show").splitlines()
    return next(line.split()[1] for line in shown if line.split()[0] == role and len(line) < 40)


def refused(*words: str | Path) -> str:
    """Run a command that must refuse with status 1; its sentence."""
    with pytest.raises(CommandError) as error:
        doorward(*words)
    assert error.value.returncode == 1, error.value
    sentence = str(error.value)
    assert PASSPHRASE not in sentence
    assert NEVER_TYPED not in sentence
    return sentence


def test_keys_are_made_shown_renewed_and_replaced(media: Olga) -> None:
    said = media.makes_keys()
    assert sorted(path.name for path in media.keys.iterdir()) == [
        "root-1.pem",
        "root-2.pem",
        "root-3.pem",
        "targets.pem",
    ]
    assert all(str(path) in said for path in media.keys.iterdir())
    assert all(b"ENCRYPTED" in path.read_bytes() for path in media.keys.iterdir())
    assert "root 1, threshold 2" in doorward("definitions-keys", "show")
    assert "Root 2 is published" in doorward("definitions-keys", "renew", *media.signing)
    old, fresh = key_of("targets"), media.media / "fresh.pem"
    said = doorward(
        *("definitions-keys", "replace", "targets", old, "--new", fresh, *media.signing),
        *("--new-passphrase-file", media.writes("new", NEVER_TYPED)),
    )
    assert f"The new key is {fresh}. Destroy the old one." in said
    assert key_of("targets") != old
    # From now on only the fresh one signs.
    feed = media.lists("malicious")
    assert "none of these files is the key" in refused("import-definitions", feed, *media.signing)
    said = media.imports(feed, "--keys", fresh, "--passphrase-file", media.media / "new")
    assert "Signed as set" in said


def test_a_list_is_tried_imported_held_let_on_taken_back_and_removed(olga: Olga) -> None:
    assert "No set yet" in doorward("definitions")
    first, second = olga.lists("one"), olga.lists("one", "two", name="more")
    tried = olga.imports(first, "--try")
    assert "hashes  1 good" in tried
    assert "Only tried: nothing was kept or signed." in tried
    assert not DefinitionSource.objects.exists()
    told = json.loads(olga.imports(first, "--json", "--name", "mine", *olga.signing))
    assert (told["imported"], told["name"], told["hashes"], told["refused"]) == (
        True,
        "mine",
        1,
        [],
    )
    assert "Nothing new is in it" in olga.imports(first, "--name", "mine", *olga.signing)
    newer = json.loads(olga.imports(second, "--json", *olga.signing))["set"]
    assert f"Set {newer}: held by an operator." in doorward("definitions", "pause", str(newer))
    assert f"Set {newer}: " in doorward("definitions", "resume", str(newer))
    assert f"Set {newer}: " in doorward("definitions", "release", str(newer))
    shown = doorward("definitions", "status")
    assert "mine: 0 rules, 1 hashes" in shown
    assert "more: 0 rules, 2 hashes" in shown
    back = doorward(
        *("definitions", "take-back", "--to", str(told["set"]), "--why", "too eager"),
        *olga.signing,
    )
    assert f"holds what {told['set']} held, for every device." in back
    assert "too eager" in doorward("definitions")
    # What a set was made of is taken back with it.
    assert [source.name for source in DefinitionSource.objects.all()] == ["mine"]
    assert "mine is out of it." in doorward("definitions", "remove", "mine", *olga.signing)
    told = json.loads(doorward("definitions", "status", "--json"))
    assert told["sources"] == []
    assert len(told["sets"]) == 4


SIGNING = {
    "import": ("import-definitions", "FEED"),
    "take back": ("definitions", "take-back"),
    "remove": ("definitions", "remove", "standing"),
    "renew": ("definitions-keys", "renew"),
    "replace": ("definitions-keys", "replace", "targets", "KEY", "--new", "NEW", "--no-passphrase"),
}
UNUSABLE = {
    "a wrong passphrase": "is no key, or the passphrase is wrong.",
    "a passphrase file that is not there": "no such file or directory.",
    "a passphrase file that is a folder": "is a directory.",
    "a folder that is not there": "no such file or directory.",
    "a folder without keys": "no key file (*.pem) is there.",
    "a file that holds no key": "is no key, or the passphrase is wrong.",
    "keys of another server": "",
}


@pytest.mark.parametrize("command", SIGNING)
@pytest.mark.parametrize("what", UNUSABLE)
def test_what_cannot_sign_is_said_in_a_sentence_and_nothing_is_lost(
    olga: Olga, command: str, what: str
) -> None:
    for text in ("first", "standing"):
        olga.imports(olga.lists(text, name=text), *olga.signing)
    empty = olga.media / "empty"
    empty.mkdir()
    keys, secret = olga.keys, olga.media / "passphrase"
    match what:
        case "a wrong passphrase":
            secret = olga.writes("wrong", NEVER_TYPED)
        case "a passphrase file that is not there":
            secret = olga.media / "nowhere"
        case "a passphrase file that is a folder":
            secret = empty
        case "a folder that is not there":
            keys = olga.media / "nowhere"
        case "a folder without keys":
            keys = empty
        case "a file that holds no key":
            keys = olga.writes("letter.pem", "Dear Alice")
        case "keys of another server":
            keys = olga.media / "elsewhere"
            keys.mkdir()
            other = other_keys(keys)
            assert other
    named = {
        "FEED": str(olga.lists("fresh")),
        "KEY": key_of("targets"),
        "NEW": str(olga.media / "new.pem"),
    }
    words = [named.get(word, word) for word in SIGNING[command]]
    before = olga.everything()
    said = refused(*words, "--keys", keys, "--passphrase-file", secret)
    assert said.startswith("Nothing was ")
    if what == "keys of another server":
        signs_sets = command in {"import", "take back", "remove"}
        needed = "none of these files is the key" if signs_sets else "root keys are needed"
        assert needed in said
    else:
        assert said.endswith(UNUSABLE[what])
    assert olga.everything() == before
    assert not (olga.media / "new.pem").exists()


def other_keys(folder: Path) -> list[Path]:
    """Keys that this server never heard of."""
    from cryptography.hazmat.primitives import serialization
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

    made = []
    for name in ("root-1", "root-2", "targets"):
        pem = Ed25519PrivateKey.generate().private_bytes(
            serialization.Encoding.PEM,
            serialization.PrivateFormat.PKCS8,
            serialization.BestAvailableEncryption(PASSPHRASE.encode()),
        )
        (folder / f"{name}.pem").write_bytes(pem)
        made.append(folder / f"{name}.pem")
    return made


def test_before_there_are_keys_each_command_says_how_to_begin(media: Olga) -> None:
    feed = media.lists("malicious")
    media.keys.mkdir()
    media.writes("keys/targets.pem", "not yet")
    for words in (
        ("definitions-keys", "show"),
        ("definitions", "take-back", *media.signing),
        ("import-definitions", feed, *media.signing),
        ("import-definitions", feed),
    ):
        assert refused(*words).startswith(NO_KEYS), words
    assert "--try tries the import without." in refused("import-definitions", feed)
    assert "Nothing is signed yet" in doorward("definitions")
    assert "hashes  1 good" in media.imports(feed, "--try")


@pytest.mark.parametrize(
    ("passphrase", "sentence"),
    [
        ("too short", "needs at least 12 characters."),
        (b"\xff\xfe" * 20, "holds no text: a passphrase can be typed."),
        (None, "no such file or directory."),
    ],
    ids=["short", "bytes", "missing"],
)
def test_keys_are_not_made_with_a_passphrase_nobody_could_rely_on(
    media: Olga, passphrase: str | bytes | None, sentence: str
) -> None:
    file = media.media / "nowhere" if passphrase is None else media.writes("weak", passphrase)
    said = refused("definitions-keys", "make", media.keys, "--passphrase-file", file)
    assert said.startswith("Nothing was changed: ")
    assert said.endswith(sentence)
    assert not media.keys.exists()
    assert not repository.exists()


def test_keys_are_made_once_and_never_where_the_server_lies(media: Olga) -> None:
    make = ("definitions-keys", "make")
    assert "is in the data folder" in refused(*make, media.data / "keys", *media.secret)
    assert "the threshold must be" in refused(
        *make, media.keys, *media.secret, "--roots", "2", "--threshold", "3"
    )
    assert not repository.exists()
    media.makes_keys()
    before = media.everything()
    assert "there are keys already" in refused(*make, media.media / "again", *media.secret)
    assert media.everything() == before
    assert not (media.media / "again").exists()


def test_a_passphrase_is_typed_once_for_each_file_and_never_shown(
    media: Olga, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[str] = []
    answers = [PASSPHRASE]

    def typed(question: str) -> str:
        asked.append(question)
        return answers[min(len(asked), len(answers)) - 1]

    monkeypatch.setattr(getpass, "getpass", typed)
    assert PASSPHRASE not in doorward("definitions-keys", "make", media.keys)
    assert asked == ["Passphrase for the new keys: ", "The same again: "]
    asked.clear()
    # The targets key alone is opened: the others need not be.
    assert "Signed as set" in media.imports(media.lists("malicious"), "--keys", media.keys)
    assert asked == [f"Passphrase of {media.keys / 'targets.pem'}: "]
    asked.clear()
    doorward("definitions-keys", "renew", "--keys", media.keys)
    assert len(asked) == len(set(asked)) == 4


def test_two_passphrases_that_differ_make_no_keys(
    media: Olga, monkeypatch: pytest.MonkeyPatch
) -> None:
    answers = iter([PASSPHRASE, NEVER_TYPED])
    monkeypatch.setattr(getpass, "getpass", lambda question: next(answers))
    assert "the two are not the same." in refused("definitions-keys", "make", media.keys)
    assert not media.keys.exists()


@pytest.mark.parametrize("words", [("renew", "--keys", "KEYS"), ("make", "NEW")])
def test_without_anybody_at_a_terminal_it_says_what_to_name(
    olga: Olga, monkeypatch: pytest.MonkeyPatch, words: tuple[str, ...]
) -> None:
    def nobody(question: str) -> str:
        raise EOFError

    monkeypatch.setattr(getpass, "getpass", nobody)
    named = {"KEYS": olga.keys, "NEW": olga.media / "new"}
    before = olga.everything()
    said = refused("definitions-keys", *(named.get(word, word) for word in words))
    assert said.endswith("nobody is there to type the passphrase; name a file that holds it.")
    assert olga.everything() == before


@pytest.mark.parametrize(
    ("name", "content", "sentence"),
    [
        ("feed.txt", "no hash at all\n", "nothing good is in it."),
        ("feed.yar", "rule broken {", "nothing good is in it."),
        ("feed.txt", b"\xff\xfe\x00\x01" * 100, "nothing good is in it."),
        ("feed.docx", "whatever", "nothing there can be read"),
        ("daily.cvd", "whatever", "nothing there can be read"),
    ],
    ids=["no hash", "broken rule", "bytes", "another kind", "only for ClamAV"],
)
def test_a_file_with_nothing_good_changes_nothing(
    olga: Olga, name: str, content: str | bytes, sentence: str
) -> None:
    olga.imports(olga.lists("standing", name="feed"), *olga.signing)
    feed = olga.writes(name, content)
    clean = olga.media / "clean"
    before = olga.everything()
    said = refused("import-definitions", feed, "--clean", clean, *olga.signing)
    assert sentence in said
    assert "Nothing was imported" in said
    assert olga.everything() == before
    with pytest.raises(CommandError):
        doorward("import-definitions", feed, "--clean", clean, "--json", *olga.signing)
    assert olga.everything() == before


def test_wrong_use_of_an_import_ends_with_2_or_names_the_option(olga: Olga) -> None:
    feed, nowhere = olga.lists("malicious"), olga.media / "nowhere"
    for words in (
        (nowhere, *olga.signing),
        (feed, "--clean", nowhere, *olga.signing),
    ):
        with pytest.raises(CommandError, match=f"There is no {nowhere}.") as error:
            doorward("import-definitions", *words)
        assert error.value.returncode == 2
    assert refused("import-definitions", feed) == (
        "Nothing was imported: say with --keys where targets.pem is."
    )
    (olga.media / "clean").mkdir()
    unnamed = ("--name", "\n", "--clean", olga.media / "clean")
    assert "can't be a name" in refused("import-definitions", feed, *unnamed, *olga.signing)
    empty = olga.media / "empty"
    empty.mkdir()
    assert "nothing there can be read" in refused("import-definitions", empty, *olga.signing)


def test_sets_that_are_not_there_or_not_held_are_not_moved(olga: Olga) -> None:
    olga.imports(olga.lists("one"), *olga.signing)
    before = olga.everything()
    for words, sentence in (
        (("pause", "7"), "there is no set 7."),
        (("release", "7"), "there is no set 7."),
        (("resume", str(DefinitionSet.objects.get().number)), "is not held"),
        (("take-back", *olga.signing), "there is no earlier set"),
        (("take-back", "--to", "7", *olga.signing), "there is no set 7."),
        (("remove", "nobody", *olga.signing), "there is no source 'nobody'."),
    ):
        said = refused("definitions", *words)
        assert said.startswith("Nothing was changed: "), words
        assert sentence in said
    assert olga.everything() == before


def test_damage_is_said_and_not_signed_over(olga: Olga) -> None:
    olga.imports(olga.lists("one"), *olga.signing)
    (repository.published() / "timestamp.json").write_text("{}")
    before = olga.everything()
    for words in (
        ("definitions-keys", "renew", *olga.signing),
        ("definitions-keys", "show"),
        ("definitions", "remove", "feed", *olga.signing),
        ("import-definitions", olga.lists("two"), "--clean", olga.media / "clean", *olga.signing),
    ):
        assert refused(*words).endswith("Restore a backup."), words
    assert olga.everything() == before
