"""Sign-ins a second against the bare password hash on the same core, beside a peer.

A sign-in is address and password sent, and an answer that begins a session: cross-site check,
limits on guessing counted before the hash, second steps asked for, audit, session and its cookies
included. It is measured for a browser the account knows (every sign-in but a browser's first), for
one it does not, and as the whole conversation of a browser that fetches the page first. The limit
is the bare hash: argon2id with the same parameters, one after the other, and nothing around it. It
is measured by libsodium and as the portal does it (which may be in memory that it keeps), and held
against the quicker of the two in each round: what a sign-in costs above either is told. Everybody
knows their password; what guessing costs is measured elsewhere.

Three peers are in the same table: a Django view that checks a password by the same hasher and does
nothing else, with no middleware around it; allauth in a project as `django-admin startproject`
leaves it, with the same hasher, served alike; and, where npm is there to fetch it, better-auth on
SQLite with its own hash, which is measured bare as well. The short round fetches nothing and leaves
it out.
"""

from __future__ import annotations

import argparse
import contextlib
import http.client
import json
import os
import re
import shutil
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from http.cookies import SimpleCookie
from pathlib import Path
from urllib.parse import urlencode

from bench import ground

PEOPLE = 40
CALLERS = 4
GOAL = 0.88
GOAL_CPU_MS = 4.0
KNOWN, NEW, PAGE, BARE_VIEW, BETTER_AUTH = "known", "new", "page", "bare-view", "better-auth"
LIBSODIUM, OURS = "libsodium", "ours"
BETTER_AUTH_FILES = ground.ROOT / "bench" / "peers" / "better-auth"
FETCHED_WITHIN_S = 180
AGENT = "Mozilla/5.0 (X11; Linux x86_64; rv:140.0) Gecko/20100101 Firefox/140.0"
PASSWORD = "a door that opens for everybody here"  # noqa: S105 - of people who live for seconds


def main(argv: list[str]) -> int:
    """Measure and print the table; 1 when a goal is missed, 2 on wrong use."""
    parser = argparse.ArgumentParser(prog="doorward bench sign-in", description=__doc__)
    parser.add_argument("--quick", action="store_true", help="one short round: does it run at all?")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--seconds", type=float, default=5.0, help="of each measurement")
    parser.add_argument("--seed", action="store_true", help=argparse.SUPPRESS)
    parser.add_argument("--load", nargs=3, help=argparse.SUPPRESS)
    parser.add_argument("--hash", nargs=2, help=argparse.SUPPRESS)
    options = parser.parse_args(argv)
    if options.seed:
        return seed()
    if options.load:
        return load(int(options.load[0]), float(options.load[1]), options.load[2])
    if options.hash:
        return bare_hash(float(options.hash[0]), options.hash[1])
    rounds, seconds = (1, 1.0) if options.quick else (options.rounds, options.seconds)
    try:
        core, load_core = ground.cores()
    except ground.NotPossible as reason:
        print(f"bench sign-in: {reason}", file=sys.stderr)
        return 2
    status = measure(rounds, seconds, core, load_core, fetch=not options.quick)
    return 0 if options.quick else status


@dataclass(frozen=True)
class Run:
    """How many were done in what time, and the processor time of one, in milliseconds."""

    a_second: float
    cpu_ms: float


def measure(rounds: int, seconds: float, core: int, load_core: int, *, fetch: bool) -> int:
    """Alternate the portal's ways, the peers and the bare hashes, and print the table."""
    with contextlib.ExitStack() as stack:
        prepared = stack.enter_context(ground.prepared(1))
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

        def hashed(told: dict[str, float]) -> Run:
            return Run(told["done"] / told["seconds"], told["cpu"] / told["done"] * 1e3)

        def loaded(port: int, process: subprocess.Popen[bytes], way: str) -> Run:
            used = ground.cpu_seconds(process)
            told = child(load_core, "--load", str(port), str(seconds), way)
            used = ground.cpu_seconds(process) - used
            return Run(told["done"] / told["seconds"], used / told["done"] * 1e3)

        child(core, "--seed")
        port, process = stack.enter_context(ground.portal(prepared, core=core))
        peer_port, peer_process = stack.enter_context(start_project(core, "peer.settings"))
        view_port, view_process = stack.enter_context(start_project(core, "peer.bare"))
        second: BetterAuth | str = "not fetched for a short round"
        if fetch:
            try:
                second = stack.enter_context(better_auth(core))
            except ground.NotPossible as reason:
                second = str(reason)
        # The first requests load the app, and make each browser known.
        child(load_core, "--load", str(port), "3", KNOWN)
        child(load_core, "--load", str(peer_port), "1", PAGE)
        child(load_core, "--load", str(view_port), "1", BARE_VIEW)
        if isinstance(second, BetterAuth):
            child(load_core, "--load", str(second.port), "3", BETTER_AUTH)
        runs: dict[str, list[Run]] = {}
        for _ in range(rounds):
            for way in (KNOWN, NEW, PAGE):
                runs.setdefault(way, []).append(loaded(port, process, way))
            runs.setdefault("peer", []).append(loaded(peer_port, peer_process, PAGE))
            runs.setdefault(BARE_VIEW, []).append(loaded(view_port, view_process, BARE_VIEW))
            for how in (LIBSODIUM, OURS):
                runs.setdefault(how, []).append(hashed(child(core, "--hash", str(seconds), how)))
            if isinstance(second, BetterAuth):
                taken = loaded(second.port, second.process, BETTER_AUTH)
                runs.setdefault(BETTER_AUTH, []).append(taken)
                runs.setdefault("its hash", []).append(hashed(second.bare_hash(seconds)))
    sodium, ours = runs[LIBSODIUM], runs[OURS]
    # A quicker hash of ours must not hide what is around it.
    bare = [max(pair, key=lambda run: run.a_second) for pair in zip(sodium, ours, strict=True)]
    said = {
        KNOWN: "sign-in, browser known",
        NEW: "sign-in, new browser",
        PAGE: "new browser, page and sign-in",
        LIBSODIUM: "the hash alone, by libsodium",
        OURS: "the hash alone, as it is done here",
        BARE_VIEW: "a bare Django view around that hash",
        "peer": "allauth start-project, page and sign-in",
    }
    lines = []
    for way, what in said.items():
        lines.append(
            ground.Line(
                what,
                f"{statistics.median(run.a_second for run in runs[way]):.1f}/s",
                f"bare hash {statistics.median(run.a_second for run in bare):.1f}/s",
                ground.ratio([run.a_second for run in runs[way]], [run.a_second for run in bare]),
                GOAL if way == KNOWN else 0.0,
            )
        )
    beside = f"better-auth: not measured, {second}"
    if BETTER_AUTH in runs:
        line, beside = against_better_auth(runs)
        lines.append(line)
    hash_ms, sodium_ms, ours_ms, known_ms = (
        statistics.median(run.cpu_ms for run in found)
        for found in (bare, sodium, ours, runs[KNOWN])
    )
    lines.append(
        ground.Line(
            "CPU of a sign-in, browser known",
            f"{known_ms:.1f} ms",
            f"bare hash {hash_ms:.1f} ms and {GOAL_CPU_MS:.0f} more",
            statistics.median(
                (limit.cpu_ms + GOAL_CPU_MS) / own.cpu_ms
                for own, limit in zip(runs[KNOWN], bare, strict=True)
            ),
            1.0,
        )
    )

    def above(limit: list[Run]) -> str:
        named = {
            KNOWN: "browser known",
            NEW: "new browser",
            PAGE: "with the page",
            BARE_VIEW: "bare Django view",
            "peer": "allauth start-project with its page",
        }
        return ", ".join(f"{what} {cpu_above(runs[way], limit):.1f}" for way, what in named.items())

    return ground.report(
        lines,
        [
            f"ms of CPU above the hash by libsodium ({sodium_ms:.1f}): {above(sodium)}",
            f"ms of CPU above the hash as it is done here ({ours_ms:.1f}): {above(ours)}",
            f"{PEOPLE} people, {CALLERS} browsers at once; each server on one core, load on"
            f" another; median of {rounds} alternated rounds of {seconds:g} s",
            beside,
        ],
    )


def against_better_auth(runs: dict[str, list[Run]]) -> tuple[ground.Line, str]:
    """Its row beside its own hash, and what our sign-ins are to its in words."""
    theirs, bare = runs[BETTER_AUTH], runs["its hash"]
    line = ground.Line(
        "better-auth, sign-in",
        f"{statistics.median(run.a_second for run in theirs):.1f}/s",
        f"its own hash {statistics.median(run.a_second for run in bare):.1f}/s",
        ground.ratio([run.a_second for run in theirs], [run.a_second for run in bare]),
        0.0,
    )
    times = ground.ratio([run.a_second for run in runs[KNOWN]], [run.a_second for run in theirs])
    hash_ms = statistics.median(run.cpu_ms for run in bare)
    return line, (
        f"better-auth: {times:.1f} times as many sign-ins by a known browser here as there;"
        f" its hash {hash_ms:.1f} ms CPU, above it {cpu_above(theirs, bare):.1f} ms"
    )


def cpu_above(runs: list[Run], bare: list[Run]) -> float:
    """Milliseconds of processor time of one sign-in that are not the bare hash."""
    return statistics.median(
        own.cpu_ms - limit.cpu_ms for own, limit in zip(runs, bare, strict=True)
    )


# ------------------------------------------------------------------------------------------ peers


@contextlib.contextmanager
def start_project(core: int, settings: str) -> Iterator[tuple[int, subprocess.Popen[bytes]]]:
    """Yield the port and process of a project made by startproject, people stored.

    By ``peer.settings`` it has allauth and all that comes along, by ``peer.bare`` one view.
    """
    folder = Path(tempfile.mkdtemp(prefix="dw-peer-"))
    environment = {
        "PYTHONPATH": f"{folder}{os.pathsep}{ground.ROOT}",
        "DJANGO_SETTINGS_MODULE": settings,
        # Its hasher is ours, and reads the name of our data folder.
        "DOORWARD_DATA": str(folder / "unused"),
    }
    try:
        subprocess.run(
            [sys.executable, "-m", "django", "startproject", "peer", str(folder)], check=True
        )
        for name, more in PEER_FILES.items():
            with (folder / "peer" / name).open("a") as file:
                file.write(more)
        subprocess.run(
            [sys.executable, "-c", PEER_SEED.format(people=PEOPLE, password=PASSWORD)],
            env={**os.environ, **environment, "DJANGO_SETTINGS_MODULE": "peer.settings"},
            cwd=folder,
            check=True,
        )
        port, log = ground.free_port(), folder / "log"
        with log.open("wb") as out:
            process = ground.start(
                [
                    *(sys.executable, "-m", "granian", "--interface", "wsgi", "--workers", "1"),
                    *("--blocking-threads", "4", "--port", str(port), "--no-ws"),
                    *("--working-dir", str(folder), "peer.wsgi:application"),
                ],
                core=core,
                environment=environment,
                stdout=out,
                stderr=out,
            )
        try:
            ground.wait_until_open(f"http://127.0.0.1:{port}/login/", process, log)
            yield port, process
        finally:
            ground.stop(process)
    finally:
        shutil.rmtree(folder, ignore_errors=True)


PEER_SETTINGS = """
DEBUG = False
ALLOWED_HOSTS = ["localhost", "127.0.0.1"]
INSTALLED_APPS += ["allauth", "allauth.account"]
MIDDLEWARE += ["allauth.account.middleware.AccountMiddleware"]
AUTHENTICATION_BACKENDS = ["allauth.account.auth_backends.AuthenticationBackend"]
ACCOUNT_LOGIN_METHODS = {"email"}
ACCOUNT_SIGNUP_FIELDS = ["email*", "password1*"]
LOGIN_REDIRECT_URL = "/"
# The same hash; everything else as it comes, but for the limit that would end the measurement.
PASSWORD_HASHERS = ["doorward.accounts.passwords.Argon2idHasher"]
ACCOUNT_RATE_LIMITS = {"login": "1000000/m/ip"}
"""
PEER_URLS = """
from django.urls import include

urlpatterns += [path("", include("allauth.account.urls"))]
"""
BARE_SETTINGS = """
from peer.settings import *

INSTALLED_APPS = ["django.contrib.auth", "django.contrib.contenttypes"]
MIDDLEWARE = []
ROOT_URLCONF = "peer.bare_view"
"""
BARE_VIEW_FILE = """
from django.contrib.auth.hashers import check_password
from django.contrib.auth.models import User
from django.http import HttpResponse
from django.urls import path

stored = []


def sign_in(request):
    if request.method != "POST":
        return HttpResponse("send a password")
    # The database is not asked again: nothing is counted but Django's own way, and the hash.
    stored.extend([] if stored else [User.objects.first().password])
    if not check_password(request.POST["password"], stored[0]):
        return HttpResponse("wrong", status=400)
    answer = HttpResponse(status=302)
    answer.set_cookie("sessionid", "none")
    return answer


urlpatterns = [path("login/", sign_in)]
"""
PEER_FILES = {
    "settings.py": PEER_SETTINGS,
    "urls.py": PEER_URLS,
    "bare.py": BARE_SETTINGS,
    "bare_view.py": BARE_VIEW_FILE,
}
PEER_SEED = """
import django

django.setup()
from django.core.management import call_command

call_command("migrate", verbosity=0, interactive=False)
from allauth.account.models import EmailAddress
from django.contrib.auth.models import User

for number in range({people}):
    email = f"person-{{number}}@example.org"
    user = User.objects.create_user(f"person-{{number}}", email, {password!r})
    EmailAddress.objects.create(user=user, email=email, verified=True, primary=True)
"""


@dataclass(frozen=True)
class BetterAuth:
    """A running better-auth of people who all have the same password."""

    folder: Path
    port: int
    core: int
    process: subprocess.Popen[bytes]

    def bare_hash(self, seconds: float) -> dict[str, float]:
        """How often its own hash was checked in so long, and the processor time that took."""
        done = subprocess.run(
            [
                *(ground.TASKSET, "-c", str(self.core), "node", str(self.folder / "server.mjs")),
                *("hash", str(seconds), PASSWORD),
            ],
            check=True,
            stdout=subprocess.PIPE,
        )
        told: dict[str, float] = json.loads(done.stdout)
        return told


@contextlib.contextmanager
def better_auth(core: int) -> Iterator[BetterAuth]:
    """Yield better-auth on this core, fetched by npm into a folder that is gone afterwards.

    Raises NotPossible without npm and node, and when the packages cannot be fetched.
    """
    npm, node = shutil.which("npm"), shutil.which("node")
    if npm is None or node is None:
        raise ground.NotPossible("npm is not here")
    folder = Path(tempfile.mkdtemp(prefix="dw-peer-"))
    log = folder / "log"
    try:
        for path in BETTER_AUTH_FILES.iterdir():
            shutil.copy(path, folder)
        fetch_packages(npm, folder)
        port = ground.free_port()
        with log.open("wb") as out:
            process = ground.start(
                [
                    *(node, str(folder / "server.mjs"), "serve", str(port)),
                    *(str(folder / "people.sqlite3"), str(PEOPLE), PASSWORD),
                ],
                core=core,
                environment={"NODE_ENV": "production", "BETTER_AUTH_TELEMETRY": "0"},
                stdout=out,
                stderr=out,
            )
        try:
            ground.wait_until_open(f"http://127.0.0.1:{port}/ready", process, log)
            yield BetterAuth(folder, port, core, process)
        finally:
            ground.stop(process)
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def fetch_packages(npm: str, folder: Path) -> None:
    """Have what the lock names in the folder. Raises NotPossible when that cannot be had.

    No script of a package runs: its SQLite comes compiled.
    """
    try:
        fetched = subprocess.run(
            [npm, "ci", "--ignore-scripts", "--no-audit", "--no-fund"],
            env={**os.environ, "npm_config_update_notifier": "false"},
            cwd=folder,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            timeout=FETCHED_WITHIN_S,
        )
        if fetched.returncode != 0:
            reason = _last(fetched.stdout)
            raise ground.NotPossible(f"its packages could not be fetched: {reason}")
    except subprocess.TimeoutExpired as failure:
        raise ground.NotPossible("its packages were not fetched in time") from failure


def _last(said: bytes) -> str:
    # Of what npm says the line that names the fault; addresses of its registry are left out.
    lines = [line for line in said.decode(errors="replace").splitlines() if " code " in line]
    return lines[-1] if lines else "npm did not say why"


# ----------------------------------------------------------------------------------------- people


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


def load(port: int, seconds: float, way: str) -> int:
    """Sign people in for so long; print how many and how long it took."""
    done = [0] * CALLERS
    failures: list[BaseException] = []
    # Whose browser each is stays known from one load to the next.
    kept = Path(os.environ["DOORWARD_DATA"]) / "proofs.json"
    proofs: dict[str, dict[str, str]] = {}
    if way == KNOWN and kept.exists():
        proofs = json.loads(kept.read_text())
    began = time.perf_counter()

    def call(number: int) -> None:
        turn = number
        try:
            while time.perf_counter() - began < seconds:
                email = f"person-{turn % PEOPLE}@example.org"
                if way == BETTER_AUTH:
                    sign_in_by_json(port, email)
                elif way == PAGE:
                    Browser(port).sign_in(email)
                elif way == BARE_VIEW:
                    Browser(port, ("none", {})).sign_in(email)
                else:
                    # The page is open already: what is measured is the sending.
                    browser = Browser(port, _page(port), proofs.get(email, {}))
                    browser.sign_in(email)
                    if way == KNOWN:
                        proofs[email] = browser.proof
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
    took = time.perf_counter() - began
    if way == KNOWN:
        kept.write_text(json.dumps(proofs))
    json.dump({"done": sum(done), "seconds": took}, sys.stdout)
    return 0


_pages: dict[int, tuple[str, dict[str, str]]] = {}


def _page(port: int) -> tuple[str, dict[str, str]]:
    # One page for all: its cross-site token holds for whoever also has its cookie.
    if port not in _pages:
        _pages[port] = Browser(port).open_page()
    return _pages[port]


@dataclass
class Browser:
    """A browser at the sign-in page, with the proof by which its person's account knows it."""

    port: int
    page: tuple[str, dict[str, str]] | None = None
    proof: dict[str, str] = field(default_factory=dict)

    def open_page(self) -> tuple[str, dict[str, str]]:
        """Fetch the page; return its cross-site token and its cookies."""
        status, page, cookies = self._ask("GET", {})
        token = re.search(r'name="csrfmiddlewaretoken" value="([^"]+)"', page)
        if status != 200 or token is None:
            raise RuntimeError(f"the sign-in page answered {status}: {page[:300]}")
        return token[1], cookies

    def sign_in(self, email: str) -> None:
        """Send address and password. Raises RuntimeError when that begins no session."""
        token, cookies = self.page or self.open_page()
        form = urlencode({"csrfmiddlewaretoken": token, "login": email, "password": PASSWORD})
        status, page, given = self._ask("POST", {**cookies, **self.proof}, form)
        if status != 302 or not {"dw_session", "sessionid"} & set(given):
            raise RuntimeError(f"signing in answered {status}: {page[-2000:]}")
        if "dw_dev" in given:
            self.proof = {"dw_dev": given["dw_dev"]}

    def _ask(
        self, method: str, cookies: dict[str, str], form: str | None = None
    ) -> tuple[int, str, dict[str, str]]:
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=30)
        headers = {"Host": f"localhost:{self.port}", "User-Agent": AGENT}
        if form is not None:
            headers["Content-Type"] = "application/x-www-form-urlencoded"
        if cookies:
            headers["Cookie"] = "; ".join(f"{name}={value}" for name, value in cookies.items())
        try:
            connection.request(method, "/login/", form, headers)
            answer = connection.getresponse()
            page = answer.read().decode()
        finally:
            connection.close()
        jar = SimpleCookie()
        for value in answer.headers.get_all("Set-Cookie") or ():
            jar.load(value)
        return answer.status, page, {name: morsel.value for name, morsel in jar.items()}


def sign_in_by_json(port: int, email: str) -> None:
    """Send address and password to better-auth. Raises RuntimeError when no session begins."""
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=30)
    headers = {
        "Host": f"localhost:{port}",
        "Origin": f"http://localhost:{port}",
        "User-Agent": AGENT,
        "Content-Type": "application/json",
    }
    try:
        body = json.dumps({"email": email, "password": PASSWORD})
        connection.request("POST", "/api/auth/sign-in/email", body, headers)
        answer = connection.getresponse()
        said = answer.read().decode()
    finally:
        connection.close()
    if answer.status != 200 or "session_token" not in (answer.headers["Set-Cookie"] or ""):
        raise RuntimeError(f"signing in answered {answer.status}: {said[:300]}")


def bare_hash(seconds: float, how: str) -> int:
    """Check one password again and again; print how often, how long, and the processor time."""
    import django

    django.setup()
    from nacl.pwhash import argon2id

    from doorward.accounts import hashing, passwords
    from doorward.accounts.models import User

    person = User.objects.get(email="person-0@example.org")
    encoded = person.password[person.password.index("$argon2id$") :].encode()
    parts = passwords.Argon2idHasher().decode(person.password)
    salt, cost = parts["salt"].encode("latin1"), (parts["memory_cost"], parts["time_cost"])
    password, memory = PASSWORD.encode(), hashing.KeptMemory()

    def ours() -> bytes:
        return hashing.argon2id(password, salt, memory, memory_kib=cost[0], time_cost=cost[1])

    # As in a server that is under way: by the first hashes it finds out how they are quicker.
    while how == OURS and hashing.QUICKER.keeps is None:
        ours()
    stored, done = ours(), 0
    used, began = time.process_time(), time.perf_counter()
    while time.perf_counter() - began < seconds:
        right = ours() == stored if how == OURS else argon2id.verify(encoded, password)
        if not right:
            raise RuntimeError("the right password was not accepted")
        done += 1
    took, used = time.perf_counter() - began, time.process_time() - used
    json.dump({"done": done, "seconds": took, "cpu": used}, sys.stdout)
    return 0


if __name__ == "__main__":
    raise SystemExit(main(sys.argv[1:]))
