"""`./doorward bench NAME`: one benchmark, each figure a ratio against a limit or a peer."""

from __future__ import annotations

import sys
from importlib import import_module
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
NAMES = ("check-in", "intake", "sign-in", "scan", "watch", "guessing", "fleet")


def main(words: list[str]) -> int:
    """Run the named benchmark; its status: 0 when every goal holds, 1 when one is missed."""
    if not words or words[0] not in NAMES:
        sys.stderr.write(f"usage: ./doorward bench {' | '.join(NAMES)}  (bench/README.md)\n")
        return 0 if set(words) & {"-h", "--help"} else 2
    sys.path.insert(0, str(ROOT))
    status: int = import_module(f"bench.{words[0].replace('-', '_')}").main(words[1:])
    return status


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
