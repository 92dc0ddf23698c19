"""`watch`: real-time protection, as a child of `run`; nobody types this.

Standard input is `run`'s: a line says that the settings have changed, its end that `run` has ended.
Standard output tells how it is, one line of JSON whenever that changes.
"""

from __future__ import annotations

import argparse
import contextlib
import logging
import os
import signal
import sys
from types import FrameType

import msgspec

from doorward_agent import announce, database, findings, hosts, identity, policy, treatment
from doorward_agent.commands import config_of
from doorward_agent.inspection import Detection
from doorward_agent.protection import RealTimeStatus
from doorward_agent.realtime.watch import Watch

log = logging.getLogger("doorward_agent")

_NICE = 5
"""Behind what people do, before the scans: somebody may wait for what was just written."""


def run(arguments: argparse.Namespace) -> int:
    """Watch until standard input ends or SIGTERM; answer 0."""
    config = config_of(arguments)
    logging.basicConfig(
        stream=sys.stderr, level=logging.INFO, format="%(asctime)s %(levelname)s %(message)s"
    )
    if hasattr(os, "nice"):
        os.nice(_NICE)
    db = database.open_in(config.state_dir)
    stopped = False
    announcer = announce.Announcer(wanted=lambda: policy.current(db)[1].on_device.notifications)

    def deal(detection: Detection, definitions_version: str, put_away: bool) -> bool:
        teller = None
        with contextlib.suppress(identity.IdentityProblem):
            who = identity.load(config.state_dir)
            if who is not None and who.state == "enrolled":
                teller = findings.Teller(config=config, db=db)
        outcome = treatment.treat(
            detection,
            config,
            put_away=put_away,
            teller=teller,
            definitions_version=definitions_version,
        )
        log.warning(
            "found as it was written: %s in %s, %s",
            detection.title,
            detection.path,
            outcome.detail or outcome.action,
        )
        announcer.found(detection, outcome)
        return outcome.action == "quarantined"

    watch = Watch(config, deal=deal, tell=_tell, since=arguments.since)

    def stop(number: int, frame: FrameType | None) -> None:
        nonlocal stopped
        stopped = True
        watch.wake()

    signal.signal(signal.SIGTERM, stop)
    # Ctrl-C reaches every process of the terminal; `run` decides what it ends.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    try:
        watch.apply(*policy.current(db))
        hosts.give_back_memory()
        while not stopped:
            if watch.turn(also=0):
                told = os.read(0, 4096)
                if not told:
                    break
                watch.apply(*policy.current(db))
    finally:
        watch.close()
        announcer.close()
        db.close()
    return 0


def _tell(status: RealTimeStatus) -> None:
    # Where nobody listens any more, standard input says so too.
    with contextlib.suppress(OSError):
        os.write(1, msgspec.json.encode(status) + b"\n")
