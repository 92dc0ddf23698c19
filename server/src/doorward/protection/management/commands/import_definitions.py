"""``import-definitions PATH``: rules and hashes of others, tried, signed and given to devices."""

from __future__ import annotations

import getpass
import json
import logging
from argparse import ArgumentParser
from pathlib import Path
from typing import Any, Final

from django.core.management.base import BaseCommand, CommandError

from doorward.protection.definitions import (
    importing,
    named_keys,
    repository,
    sources,
    vetting,
)
from doorward.protection.definitions.importers.reading import label
from doorward.protection.definitions.importing import Imported
from doorward.protection.definitions.keys import KeysRefused

SHOWN: Final = 25
"""Refusals, and as many things passed over, shown without --all; --json has every one."""


class Command(BaseCommand):
    help = (
        "Import YARA rules, ClamAV signatures (.hdb, .hsb, .ndb) or lists of SHA-256 hashes. They "
        "are tried first; what is good is signed and given to a few devices, then to all."
    )

    def add_arguments(self, parser: ArgumentParser) -> None:
        parser.add_argument("path", type=Path, help="a file, or a folder of files")
        parser.add_argument(
            "--name",
            default="",
            help="what to call it; imported again under a name, it takes the place of the former",
        )
        parser.add_argument(
            "--kind",
            default="",
            choices=["yara", "clamav-hashes", "clamav-bodies", "hashes"],
            help="how to read the files, whatever their endings",
        )
        named_keys.add_options(parser, required=False)
        parser.add_argument(
            "--clean",
            type=Path,
            nargs="+",
            default=[],
            metavar="FOLDER",
            help="files in which nothing may be found; else this system's own programs",
        )
        parser.add_argument(
            "--suspicious",
            action="store_true",
            help="what these rules find is told, and never put away",
        )
        parser.add_argument(
            "--try", action="store_true", dest="only_try", help="only try it; sign nothing"
        )
        parser.add_argument("--json", action="store_true", help="print the report as JSON")
        parser.add_argument("--all", action="store_true", help="show all that was left out")

    def handle(self, *_args: Any, **options: Any) -> None:
        logging.getLogger("tuf").setLevel(logging.WARNING)
        path: Path = options["path"]
        if not path.exists():
            raise CommandError(f"There is no {path}.", returncode=2)
        for folder in options["clean"]:
            if not folder.exists():
                raise CommandError(f"There is no {folder}.", returncode=2)
        with named_keys.refusals_told("imported", hint=" --try tries the import without."):
            try:
                done = self._import(path, options)
            except (vetting.VettingFailed, sources.SourceRefused) as failed:
                if options["json"]:
                    self.stdout.write(json.dumps({"imported": False, "why": str(failed)}))
                raise CommandError(f"Nothing was imported: {failed}", returncode=1) from None
        if options["json"]:
            self.stdout.write(json.dumps(as_data(done), indent=2))
        else:
            self._say(done, options)
        if not (done.vetted.rules or done.vetted.hashes):
            raise CommandError("Nothing was imported: nothing good is in it.", returncode=1)

    def _import(self, path: Path, options: dict[str, Any]) -> Imported:
        signer = None
        if not options["only_try"]:
            repository.newest_root()
            if not options["keys"]:
                raise KeysRefused("say with --keys where targets.pem is.")
            signer = named_keys.targets_signer(options)
        return importing.take(
            path,
            name=options["name"] or path.resolve().stem,
            kind=options["kind"],
            clean=options["clean"],
            suspicious=options["suspicious"],
            signer=signer,
            by=getpass.getuser(),
            now=repository.moment(),
        )

    def _say(self, done: Imported, options: dict[str, Any]) -> None:
        vetted = done.vetted
        self.stdout.write(f"{done.name}: {done.files} read")
        self.stdout.write(f"  rules   {vetted.rule_count} good")
        self.stdout.write(f"  hashes  {len(vetted.hashes)} good")
        self.stdout.write(f"  refused {len(vetted.refused)}")
        self.stdout.write(
            f"  tried   in {vetted.seconds:.1f} s by yara-x {vetted.engine} on "
            f"{vetted.clean_files} clean files, {vetted.clean_hit} of them hit"
        )
        if vetted.without_author:
            self.stdout.write(f"  note    without an author: {vetted.without_author}")
        shown = vetted.refused if options["all"] else vetted.refused[:SHOWN]
        for refusal in shown:
            name = f" {refusal.name}" if refusal.name else ""
            self.stdout.write(f"  refused {refusal.place}{name}: {refusal.why}".rstrip())
        if len(vetted.refused) > len(shown):
            left = len(vetted.refused) - len(shown)
            self.stdout.write(f"  … and {left} more: --all shows them")
        unread = done.passed_over if options["all"] else done.passed_over[:SHOWN]
        for each in unread:
            self.stdout.write(f"  not opened {label(each.place)}: {each.why}")
        if len(done.passed_over) > len(unread):
            left = len(done.passed_over) - len(unread)
            self.stdout.write(f"  … and {left} more not opened: --all shows them")
        if done.made is not None:
            self.stdout.write(
                f"Signed as set {done.made.number}: {done.made.get_state_display().lower()}. "
                "`definitions` shows how it goes."
            )
        elif done.source is not None:
            self.stdout.write("Nothing new is in it: the newest set stays.")
        elif options["only_try"]:
            self.stdout.write("Only tried: nothing was kept or signed.")


def as_data(done: Imported) -> dict[str, Any]:
    """The report as JSON has it; every refusal with its place and reason."""
    vetted = done.vetted
    return {
        "imported": done.source is not None,
        "name": done.name,
        "set": done.made.number if done.made else None,
        "state": done.made.state if done.made else None,
        "files": done.files,
        "rules": vetted.rule_count,
        "hashes": len(vetted.hashes),
        "rules_without_author": vetted.without_author,
        "clean_files": vetted.clean_files,
        "clean_files_hit": vetted.clean_hit,
        "engine": vetted.engine,
        "seconds": round(vetted.seconds, 1),
        "refused": [
            {"file": each.file, "line": each.line, "name": each.name, "why": each.why}
            for each in vetted.refused
        ],
        "not_opened": [{"file": each.file, "why": each.why} for each in done.passed_over],
    }
