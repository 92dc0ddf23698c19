"""Sign-ins a second, the whole conversation, against the bare password hash on the same core.

A sign-in is what a browser does: fetch the sign-in page, send address and password with its cross-
site token, and be led on with a session. The limit is the hash itself: argon2id with the same
library and parameters, one after the other, and nothing around it. Everybody knows their password;
what guessing costs is measured elsewhere.
"""

from __future__ import annotations

import argparse
import http.client
import json
import os
import re
import statistics
import subprocess
import sys
import threading
import time
from dataclasses import dataclass
from http.cookies import SimpleCookie
from urllib.parse import urlencode

from bench import ground

PEOPLE = 40
CALLERS = 4
GOAL = 0.92
GOAL_CPU_MS = 3.0
PASSWORD = "a door that opens for everybody here"  # noqa: S105 - of people who live for seconds


def main(argv: list[str]) -> int:
    """Measure and print the table; 1 when a goal is missed, 2 on wrong use."""
    parser = argparse.ArgumentParser(prog="doorward bench sign-in", description=__doc__)
    parser.add_argument("--quick", action="store_true", help="one short round: does it run at all?")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--seconds", type=float, default=5.0, help="of each measurement")
    parser.add_argument("--seed", action="store_true", help=argparse.SUPPRESS)
    parser.add_argument("--load", nargs=2, help=argparse.SUPPRESS)
    parser.add_argument("--hash", nargs=1, help=argparse.SUPPRESS)
    options = parser.parse_args(argv)
    if options.seed:
        return seed()
    if options.load:
        return load(int(options.load[0]), float(options.load[1]))
    if options.hash:
        return bare_hash(float(options.hash[0]))
    rounds, seconds = (1, 1.0) if options.quick else (options.rounds, options.seconds)
    try:
        core, load_core = ground.cores()
    except ground.NotPossible as reason:
        print(f"bench sign-in: {reason}", file=sys.stderr)
        return 2
    status = measure(rounds, seconds, core, load_core)
    return 0 if options.quick else status


@dataclass(frozen=True)
class Run:
    """How many were done in what time, and the processor time of one, in milliseconds."""

    a_second: float
    cpu_ms: float


def measure(rounds: int, seconds: float, core: int, load_core: int) -> int:
    """Alternate the portal and the bare hash, and print the table."""
    with ground.prepared(1) as prepared:
        environment = {**os.environ, **prepared.environment}

        def child(on: int, *words: str) -> dict[str, float]:
            done = subprocess.run(
                [ground.TASKSET, "-c", str(on), sys.executable, "-m", "bench.sign_in", *words],
                env=environment,
                cwd=ground.ROOT,
                check=True,
                stdout=subprocess.PIPE,
            )
            told: dict[str, float] = json.loads(done.stdout)
            return told

        child(core, "--seed")
        with ground.portal(prepared, core=core) as (port, process):
            child(load_core, "--load", str(port), "1")  # The first request of all loads the app.
            ours: list[Run] = []
            theirs: list[Run] = []
            for _ in range(rounds):
                used = ground.cpu_seconds(process)
                told = child(load_core, "--load", str(port), str(seconds))
                used = ground.cpu_seconds(process) - used
                ours.append(Run(told["done"] / told["seconds"], used / told["done"] * 1e3))
                told = child(core, "--hash", str(seconds))
                theirs.append(Run(told["done"] / told["seconds"], told["cpu"] / told["done"] * 1e3))
    above = statistics.median(
        own.cpu_ms - their.cpu_ms for own, their in zip(ours, theirs, strict=True)
    )
    hash_ms = statistics.median(run.cpu_ms for run in theirs)
    lines = [
        ground.Line(
            "sign-in, whole conversation",
            f"{statistics.median(run.a_second for run in ours):.1f} sign-ins/s",
            f"bare hash {statistics.median(run.a_second for run in theirs):.1f}/s",
            ground.ratio([run.a_second for run in ours], [run.a_second for run in theirs]),
            GOAL,
        ),
        ground.Line(
            "CPU above the hash",
            f"{above:.1f} ms",
            f"{GOAL_CPU_MS:.0f} ms at most",
            GOAL_CPU_MS / max(above, 0.01),
            1.0,
            binding=False,
        ),
    ]
    return ground.report(
        lines,
        [
            f"hash {hash_ms:.1f} ms CPU; {PEOPLE} people, {CALLERS} browsers at once; portal on one"
            f" core, load on another; median of {rounds} alternated rounds of {seconds:g} s"
        ],
    )


def seed() -> int:
    """Store the people, their addresses confirmed."""
    import django

    django.setup()
    from allauth.account.models import EmailAddress
    from django.core.management import call_command

    from doorward.accounts.models import Account, Membership, Role, User

    for number in range(PEOPLE):
        email = f"person-{number}@example.org"
        user = User.objects.create_user(email, PASSWORD, name=f"Person {number}")
        EmailAddress.objects.create(user=user, email=email, verified=True, primary=True)
        account = Account.objects.create(name=user.name)
        Membership.objects.create(account=account, user=user, role=Role.OWNER)
    call_command("collectstatic", verbosity=0, interactive=False)
    json.dump({}, sys.stdout)
    return 0


def load(port: int, seconds: float) -> int:
    """Sign people in for so long; print how many and how long it took."""
    done = [0] * CALLERS
    failures: list[BaseException] = []
    began = time.perf_counter()

    def call(number: int) -> None:
        turn = number
        try:
            while time.perf_counter() - began < seconds:
                sign_in(port, f"person-{turn % PEOPLE}@example.org")
                done[number] += 1
                turn += CALLERS
        except BaseException as failure:  # noqa: BLE001 - told by the main thread
            failures.append(failure)

    threads = [threading.Thread(target=call, args=(number,)) for number in range(CALLERS)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    if failures:
        raise failures[0]
    json.dump({"done": sum(done), "seconds": time.perf_counter() - began}, sys.stdout)
    return 0


def sign_in(port: int, email: str) -> None:
    """One sign-in as a fresh browser makes it. Raises RuntimeError when it is not let in."""
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=30)
    headers = {"Host": f"localhost:{port}"}
    connection.request("GET", "/login/", headers=headers)
    answer = connection.getresponse()
    page = answer.read().decode()
    cookies = SimpleCookie()
    for value in answer.headers.get_all("Set-Cookie") or ():
        cookies.load(value)
    token = re.search(r'name="csrfmiddlewaretoken" value="([^"]+)"', page)
    if answer.status != 200 or token is None:
        raise RuntimeError(f"the sign-in page answered {answer.status}: {page[:300]}")
    form = urlencode({"csrfmiddlewaretoken": token[1], "login": email, "password": PASSWORD})
    headers |= {
        "Content-Type": "application/x-www-form-urlencoded",
        "Cookie": "; ".join(f"{name}={morsel.value}" for name, morsel in cookies.items()),
    }
    connection.request("POST", "/login/", form, headers)
    answer = connection.getresponse()
    page = answer.read().decode()
    connection.close()
    if answer.status != 302 or "dw_session" not in str(answer.headers.get_all("Set-Cookie")):
        raise RuntimeError(f"signing in answered {answer.status}: {page[-2000:]}")


def bare_hash(seconds: float) -> int:
    """Check one password again and again; print how often, how long, and the processor time."""
    import django

    django.setup()
    from nacl.pwhash import argon2id

    from doorward.accounts.models import User

    person = User.objects.get(email="person-0@example.org")
    encoded = person.password[person.password.index("$argon2id$") :].encode()
    password = PASSWORD.encode()
    done = 0
    used, began = time.process_time(), time.perf_counter()
    while time.perf_counter() - began < seconds:
        if not argon2id.verify(encoded, password):
            raise RuntimeError("the right password was not accepted")
        done += 1
    took, used = time.perf_counter() - began, time.process_time() - used
    json.dump({"done": done, "seconds": took, "cpu": used}, sys.stdout)
    return 0


if __name__ == "__main__":
    raise SystemExit(main(sys.argv[1:]))
