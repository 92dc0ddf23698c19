"""`enroll`: this computer joins an account."""

from __future__ import annotations

import argparse
import asyncio
import dataclasses
import datetime as dt
import sys
import time
from importlib.metadata import version as version_of
from typing import Final

from doorward_agent import (
    database,
    delivery,
    identity,
    link,
    loop,
    machine,
    outbox,
    policy,
    remote,
    upkeep,
)
from doorward_agent.commands import CommandRefused, config_of, own_command
from doorward_agent.config import AgentConfig
from doorward_agent.terminal import say
from doorward_protocol import messages, signing

# A reply may get lost; the same key and code then give the same device. Seconds between tries.
_AGAIN_AFTER: Final = (1.0, 2.0, 4.0)
# All tries and pauses together: whoever waits at the terminal learns how it went.
_WITHIN: Final = 90.0


def run(arguments: argparse.Namespace) -> int:
    """Enroll with the code that was given; asked again after a lost reply, be the same device."""
    config = config_of(arguments)
    code = sys.stdin.readline(200).strip() if arguments.code == "-" else arguments.code.strip()
    if not code:
        raise CommandRefused("The code is empty. It looks like ABCD-EFGH-JKLM.")
    before = identity.load(config.state_dir)
    server = link.checked_server(arguments.server, insecure_http=arguments.insecure_http)
    if before is not None and before.state == "enrolled":
        raise CommandRefused(
            f"This computer is already enrolled with {before.server}. "
            "To move it to another account, run `unenroll` first."
        )
    if before is not None and before.state == "removed":
        # What the old account was to be told is no business of the new one. The key stays with its
        # server: there, it is the same device again.
        db = database.open_in(config.state_dir)
        outbox.clear(db)
        db.close()
        if before.server != server:
            identity.forget(config.state_dir)
    pending = identity.Identity(
        server=server,
        state="pending",
        name=arguments.name,
        insecure_http=arguments.insecure_http,
        ca_file=arguments.ca_file,
    )
    identity.save(config.state_dir, pending)
    answer, offset = asyncio.run(_enroll(config, pending, code))
    identity.save(
        config.state_dir,
        dataclasses.replace(
            pending,
            state="enrolled",
            device_id=str(answer.device_id),
            enrolled_at=dt.datetime.now(dt.UTC).isoformat(timespec="seconds"),
            clock_offset=round(offset, 3) if abs(offset) >= 1 else 0.0,
            interval=answer.check_in.interval,
            wait=min(answer.check_in.wait, messages.MAX_WAIT_SECONDS),
        ),
    )
    say(f"This computer is enrolled with {server} as device {answer.device_id}.")
    say(f"Next, start its protection: {own_command(arguments, 'run')}")
    say("Best as a service, so that it starts with the computer (docs/operators/agent.md).")
    return 0


async def _enroll(
    config: AgentConfig, pending: identity.Identity, code: str
) -> tuple[messages.EnrollAnswer, float]:
    key = identity.key_or_new(config.state_dir)
    db = database.open_in(config.state_dir)
    server = link.Link(
        pending.server,
        key,
        version=version_of("doorward-agent"),
        insecure_http=pending.insecure_http,
        ca_file=pending.ca_file,
        sent=lambda path, body, compressed: delivery.remember_sent(
            db, path, body, compressed=compressed, now=int(time.time() * 1000)
        ),
    )
    request = messages.EnrollRequest(
        jwk=signing.jwk_of(key.public_key()),
        device=loop.device_facts(version_of("doorward-agent")),
        code=code[:64],
        name=messages.fitted(pending.name, messages.MAX_NAME),
        machine=machine.mark(config.state_dir, pending.server),
        capabilities=loop.capabilities(policy.DEFAULT, remote_off=remote.is_off(config)),
    )
    last: link.LinkProblem = link.ServerUnreachable(f"{server.server} did not answer in time.")
    try:
        async with asyncio.timeout(_WITHIN):
            for pause in (*_AGAIN_AFTER, 0.0):
                try:
                    answer = await server.enroll(request)
                    # What another account wanted of this computer holds no longer.
                    policy.forget(db)
                    with database.transaction(db):
                        upkeep.begin_anew(config, db, answer.definitions_root)
                    return answer, server.clock_offset
                except (link.ServerUnreachable, link.ServerBusy) as problem:
                    last = problem
                    await asyncio.sleep(max(pause, problem.retry_after or 0.0))
    except TimeoutError:
        pass
    finally:
        await server.close()
        db.close()
    raise CommandRefused(f"{last} Nothing is lost: run the same command again, with the same code.")
