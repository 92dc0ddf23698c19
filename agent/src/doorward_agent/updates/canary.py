"""Tries a set on this very computer before it is put in force: the test file must be found, and
files that are surely clean must not.
"""

from __future__ import annotations

import dataclasses
import os
import shutil
import stat
import sys
import sysconfig
import time
from pathlib import Path
from typing import Final

from doorward_agent.config import AgentConfig
from doorward_agent.definitions.build import eicar
from doorward_agent.engines.pool import Done, EngineUnavailable, Job, Pool
from doorward_agent.updates.trust import Refused

SECONDS: Final = 300.0
"""Compiling and looking at the few files; far more than any set of rules should need."""
LARGEST: Final = 32 * 1024 * 1024
_PROGRAMS: Final = ("sh", "ls", "cat", "python3", "ssh", "tar", "curl", "notepad.exe", "cmd.exe")
_MODULES: Final = ("os.py", "ssl.py", "subprocess.py", "json/decoder.py", "http/client.py")


def try_out(config: AgentConfig, folder: str, place: Path) -> None:
    """Have a worker compile the set and look at files whose verdict is known. Raises Refused."""
    trial = place / "canary"
    trial.mkdir(mode=0o700, exist_ok=True)
    test = trial / "test-file"
    # On the way out of a run that was killed it may still be there.
    test.write_bytes(eicar())
    alone = dataclasses.replace(config, workers=1, clamd=False, low_priority=True)
    clean = surely_clean()
    try:
        done = _examined(alone, folder, [test, *clean])
    except EngineUnavailable as problem:
        raise Refused("not-compiling", f"the engine does not take the rules: {problem}") from None
    finally:
        shutil.rmtree(trial, ignore_errors=True)
    _judge(done, os.fsencode(test))


def surely_clean() -> list[Path]:
    """A few files that are on nearly every computer and surely clean."""
    library = Path(sysconfig.get_paths()["stdlib"])
    found = [Path(sys.executable), *(library / name for name in _MODULES)]
    found += [Path(path) for name in _PROGRAMS if (path := shutil.which(name)) is not None]
    real = {path.resolve() for path in found if path.is_file()}
    return sorted(path for path in real if 0 < path.stat().st_size <= LARGEST)


def _examined(config: AgentConfig, folder: str, paths: list[Path]) -> list[Done]:
    done: list[Done] = []
    until = time.monotonic() + SECONDS
    with Pool(config, folder) as pool:
        for path in paths:
            job = _job(path)
            if job is not None:
                pool.submit(job)
        while pool.outstanding:
            if time.monotonic() > until:
                raise EngineUnavailable("it takes too long")
            found = pool.collect(0.5)
            for each in found:
                os.close(each.job.descriptor)
            done += found
    return done


def _job(path: Path) -> Job | None:
    try:
        descriptor = os.open(path, os.O_RDONLY | getattr(os, "O_BINARY", 0))
    except OSError:
        return None
    about = os.fstat(descriptor)
    if not stat.S_ISREG(about.st_mode):
        os.close(descriptor)
        return None
    return Job(os.fsencode(path), descriptor, about)


def _judge(done: list[Done], test: bytes) -> None:
    found = False
    for each in done:
        name = os.fsdecode(each.job.path)
        if each.answer is None:
            why = each.failed.reason if each.failed else "engine-failed"
            raise Refused("not-compiling", f"the engine breaks on {name}: {why}")
        for limit in each.answer.limits:
            if limit.reason.startswith("engine-"):
                raise Refused("not-compiling", f"the engine gives up on {name}: {limit.reason}")
        if each.job.path == test:
            found = bool(each.answer.hits)
        elif each.answer.hits:
            hit = each.answer.hits[0][1]
            raise Refused("hits-clean", f"{hit.rule} finds something in {name}, which is clean")
    if not found:
        raise Refused("test-file-missed", "with this set the test file is not found")
