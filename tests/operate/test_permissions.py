"""No other user of the machine may read what the server keeps."""

from __future__ import annotations

import stat
from pathlib import Path

from tests.conftest import new_server


def test_v13_3_1_another_user_of_the_machine_reads_nothing_in_the_data_folder(
    tmp_path: Path,
) -> None:
    # The folder is made beforehand and open to all, as `mkdir` makes it: the files must not be.
    (tmp_path / "open").mkdir(mode=0o755)
    for name in ("open", "fresh"):
        running = new_server(tmp_path / name)
        running.start()
        try:
            # serve.log is the test's own: it keeps there what the server prints.
            files = [
                path
                for path in running.data.rglob("*")
                if path.is_file() and path.name != "serve.log"
            ]
        finally:
            running.stop()
        kept = [path for path in files if path.exists() and "static" not in path.parts]
        assert any(path.name == "doorward.sqlite3" for path in kept)
        readable = [path for path in kept if stat.S_IMODE(path.stat().st_mode) & 0o077]
        assert readable == []
