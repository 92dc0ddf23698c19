"""Where the agent keeps its things and every limit it holds to, each by name.

One frozen value, made once at start and handed down: nothing else in the agent reads the
environment for a path or writes a figure of its own.
"""

import os
import sys
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

MEBIBYTE = 1024 * 1024


class StateUnusable(Exception):
    """The state folder is missing, not ours, or open to others; the message says which and what to
    do."""


def default_state_dir(environ: Mapping[str, str] = os.environ) -> Path:
    """Return the state folder of whoever runs the agent: the system's for root, else the person's
    own.

    Honors ``DOORWARD_AGENT_STATE`` first, then the XDG base directory specification
    (``XDG_STATE_HOME``).
    """
    chosen = environ.get("DOORWARD_AGENT_STATE")
    if chosen:
        return Path(chosen).absolute()
    if sys.platform == "win32":
        return Path(environ.get("PROGRAMDATA", r"C:\ProgramData")) / "Doorward Agent"
    if os.geteuid() == 0:
        return Path("/var/lib/doorward-agent")
    if sys.platform == "darwin":
        return Path.home() / "Library" / "Application Support" / "Doorward Agent"
    xdg = environ.get("XDG_STATE_HOME", "")
    # The XDG specification: a relative path here is invalid and must be ignored.
    base = Path(xdg) if xdg.startswith("/") else Path.home() / ".local" / "state"
    return base / "doorward-agent"


@dataclass(frozen=True, slots=True, kw_only=True)
class AgentConfig:
    """Every path and limit of one agent; sizes in bytes, times in seconds unless the name says
    otherwise."""

    state_dir: Path = field(default_factory=default_state_dir)

    # -- scanning: what is read ---------------------------------------------------------------
    max_file_bytes: int = 2048 * MEBIBYTE
    """Larger files are counted as skipped ("too-large"), never as clean."""
    window_bytes: int = 32 * MEBIBYTE
    """A larger file is given to the engine in windows of this size, so that memory stays bounded.
    """
    window_overlap_bytes: int = MEBIBYTE
    """How far two windows overlap: a pattern across the seam is still seen whole."""
    excluded: tuple[str, ...] = ()
    """Folders or files never scanned, as absolute paths."""
    excluded_files: tuple[tuple[str, str], ...] = ()
    """Files in which nothing is found: SHA-256, and the one path where that holds, or "" for all.
    """
    open_archives: bool = True
    """Whether archives are looked into; without, each is told as not fully scanned."""
    scan_network_mounts: bool = False
    """Whether a walk descends into network mounts below the folder it was asked for."""

    # -- scanning: workers --------------------------------------------------------------------
    workers: int = field(default_factory=lambda: max(1, (os.cpu_count() or 1) // 2))
    jobs_in_flight: int = 32
    """Files handed to one worker before its first answer, a large one counted as several; keeps it
    busy without holding many descriptors."""
    transport: str = "descriptors" if os.name == "posix" else "paths"
    """How a worker gets a file: an open descriptor (POSIX) or its path (elsewhere)."""
    engine_timeout: int = 20
    """One engine call on one piece of content."""
    file_timeout: float = 60.0
    """A worker silent for longer on one file is killed; large files get ``size /
    slowest_bytes_per_second`` more."""
    slowest_bytes_per_second: int = 4 * MEBIBYTE
    worker_start_timeout: float = 60.0
    worker_memory_bytes: int = 1024 * MEBIBYTE
    """RLIMIT_DATA of a worker: private writable memory, not address space (the engine reserves much
    of that)."""
    worker_descriptors: int = 128
    low_priority: bool = True
    """Workers run at nice 19 with idle input/output."""
    progress_interval: float = 0.1

    # -- scanning: archives; budgets for one file on disk, however deep it nests ------------------
    archive_depth: int = 8
    archive_members: int = 10_000
    archive_member_bytes: int = 64 * MEBIBYTE
    archive_total_bytes: int = 400 * MEBIBYTE
    archive_ratio: int = 250
    """Unpacked over packed; judged only past ``archive_ratio_floor_bytes``: tiny files pack
    absurdly well."""
    archive_ratio_floor_bytes: int = MEBIBYTE
    archive_seconds: float = 30.0

    # -- scanning: clamd, where it runs ----------------------------------------------------------
    clamd: bool = True
    """Ask clamd too where its socket is found."""
    clamd_sockets: tuple[str, ...] = (
        "/run/clamav/clamd.ctl",
        "/run/clamd.scan/clamd.sock",
        "/run/clamav/clamd.sock",
        "/tmp/clamd.socket",  # nosec B108 # noqa: S108 (clamd's own default; its owner is checked)
    )
    clamd_version: str = ""
    """What the clamd said of itself that this scan asks; "" where none is asked. Found at the start
    of a scan, and then the one whose verdicts count."""
    clamd_timeout: float = 30.0
    clamd_stream_bytes: int = 25 * MEBIBYTE
    """clamd's own default StreamMaxLength (clamd.conf(5)); a larger member is not sent."""

    # -- real-time protection ---------------------------------------------------------------------
    gate_seconds: float = 3.0
    """Opening a file is held back for so long at most; then it goes on, looked at or not."""
    gate_most: int = 256
    """So many opens wait at one time; the next one goes on at once."""
    watch_rest: float = 300.0
    """Without work for so long, the workers end; the next file starts them again."""
    watch_check: float = 10.0
    """At most so often, and only while there is work, it is asked whether definitions are new."""
    watch_reopen: float = 3600.0
    """After so long the table of what is clean is opened anew: a scan may have replaced it."""
    watch_repeat: float = 3600.0
    """A finding that was left where it is, in the same file, is told again after so long."""
    watch_pause: float = 60.0
    """The longest pause before the engine, or the whole watch, is started again."""
    watch_settle: float = 1.5
    """A check-in waits so long for changed settings to take effect, so that it tells the truth."""
    sweep_step: int = 64
    """Files of a sweep that are handed over in one turn, so that what is written now goes first."""
    sweep_share: int = 8
    """So many of them go before it all the same: who writes without end puts nothing off for ever.
    """
    watch_backlog: int = 50_000
    """Files that were written and wait to be looked at. What is more is looked for on the disk, by
    when it changed, once half of them are done."""
    watch_sweeps: int = 5_000
    """New folders that wait for their turn; past it, all that is watched is looked through."""

    # -- what was already found clean -------------------------------------------------------------
    verdict_settle_ns: int = 2_000_000_000
    """A file changed more recently than this is never remembered as clean."""
    verdict_lifetime: float = 7 * 24 * 3600.0
    """After this everything is looked at again, whatever is remembered."""
    verdict_slots: int = 1 << 16
    """Places in a new table; it doubles when more than half full."""

    # -- quarantine ------------------------------------------------------------------------------
    vault_chunk_bytes: int = MEBIBYTE
    vault_bytes: int = 10 * 1024 * MEBIBYTE
    vault_files: int = 10_000
    """What the vault holds at most: whoever can make files that are found must not fill the disk by
    them. Past it nothing goes, and a file that is found has its rights taken where it is."""

    allowed_most: int = 1_000
    """Restored files that may stay; past it the oldest decision goes."""

    # -- talking to the server
    # ----------------------------------------------------------------------
    outbox_bytes: int = 50 * MEBIBYTE
    """Events waiting for delivery; past it the least important are dropped, findings never."""
    outbox_events: int = 100_000
    outbox_parked: int = 500
    """Events the server refused that are kept for people to look at."""
    watch_interval: float = 0.5
    """How often `run` looks whether another process has put something into the outbox; up to three
    times rarer while nobody does."""
    watch_patience: float = 5.0
    """How long a scan waits to see `run` deliver what it found, before it says that this is still
    to come."""
    check_in_least: float = 1.0
    """No shorter time between two check-ins, whatever the server says."""
    check_in_again: float = 0.25
    """The longest pause after a check-in that the server held open until there was news, or for as
    long as it may; chosen at random, so that devices answered together do not return together."""
    check_in_most: float = 3600.0
    """No longer one either: a mistake on the server must not silence a device for weeks."""
    pause_first: float = 2.0
    """The longest pause after a first failure; each further one doubles it."""
    pause_cap: float = 900.0

    # -- scanning by itself -----------------------------------------------------------------------
    scan_settle: float = 600.0
    """After its start `run` leaves the computer alone for so long before it scans."""
    schedule_interval: float = 30.0
    stop_seconds: float = 20.0
    """A scan has this long to end in good order when the agent is stopped."""

    @property
    def verdicts_dir(self) -> Path:
        """What was already found clean."""
        return self.state_dir / "verdicts"

    @property
    def compiled_file(self) -> Path:
        """The rules as the engine's compiler made them, so that no start compiles them again."""
        return self.state_dir / "rules.compiled"

    @property
    def quarantine_dir(self) -> Path:
        """The vault, what is held on its way there, and the journal of unfinished moves."""
        return self.state_dir / "quarantine"

    @property
    def allowed_file(self) -> Path:
        """What a person has restored, and may stay where it is."""
        return self.state_dir / "allowed.json"


def prepare(config: AgentConfig) -> None:
    """Make the state folder and its rooms, closed to everybody else; refuse one that others can
    write to.

    Raises StateUnusable.
    """
    for folder in (config.state_dir, config.verdicts_dir, config.quarantine_dir):
        try:
            folder.mkdir(mode=0o700, parents=folder is config.state_dir, exist_ok=True)
        except OSError as error:
            raise StateUnusable(f"cannot make {folder}: {error.strerror}") from error
    if os.name != "posix":
        return
    found = config.state_dir.stat()
    if found.st_uid != os.geteuid():
        raise StateUnusable(
            f"{config.state_dir} belongs to another user; give --state a folder of your own"
        )
    if found.st_mode & 0o022:
        raise StateUnusable(
            f"others can write to {config.state_dir}; run: chmod 700 {config.state_dir}"
        )
