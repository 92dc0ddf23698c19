"""The server's command line: `serve`, its three processes, and every operator's command."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable
from pathlib import Path

from doorward import keys
from doorward.environment import SettingRefused

OPTIONS = {
    "--data": "DOORWARD_DATA",
    "--host": "DOORWARD_HOST",
    "--port": "DOORWARD_PORT",
    "--device-port": "DOORWARD_DEVICE_PORT",
}
HELP = """usage: doorward COMMAND [--data DIR] [--host ADDRESS] [--port N] [--device-port N] ...

  serve      portal, gateway and worker together, until Ctrl-C
  portal     only the people's door          gateway    only the devices' door
  worker     only the deferred work          demo       a throw-away server with a real agent
  doctor     what is well and what is not    backup     everything into one file
  restore    everything back from it
{others}
Each command has --help. Settings come from DOORWARD_ variables: docs/settings.md.
"""


def main(words: list[str] | None = None) -> int:
    """Run the command; 0 when it did its work, 2 when it was used wrongly."""
    # The database holds sessions and addresses: no other user of this machine may read what this
    # process and its children write.
    os.umask(0o077)
    try:
        words = sys.argv[1:] if words is None else words
        command, rest = _take_options(words)
        if command == "demo" and any(word.partition("=")[0] == "--data" for word in words):
            return _refuse(
                "the demo keeps everything in a throw-away folder and leaves nothing behind. "
                "For a server that stays: `serve --data DIR`."
            )
        return _run(command, rest)
    except SettingRefused as refusal:
        return _refuse(str(refusal))


def _take_options(words: list[str]) -> tuple[str, list[str]]:
    rest: list[str] = []
    pending = iter(words)
    for word in pending:
        name, equals, value = word.partition("=")
        if name in OPTIONS:
            if not equals:
                value = next(pending, "")
            if not value:
                raise SettingRefused(f"{name} needs a value.")
            # Read by doorward.settings, and by every child process.
            os.environ[OPTIONS[name]] = str(Path(value).absolute()) if name == "--data" else value
        else:
            rest.append(word)
    return (rest[0], rest[1:]) if rest else ("", [])


def _run(command: str, rest: list[str]) -> int:
    os.environ.setdefault("DJANGO_SETTINGS_MODULE", "doorward.settings")
    starters = _starters()
    if command in {"", "-h", "--help", "help"}:
        _print_help()
        return 0 if command else 2
    tool = _tools().get(command)
    if tool is not None:
        return tool(rest)
    if command in starters:
        if {"-h", "--help"} & set(rest):
            _print_help()
            return 0
        if rest:
            return _refuse(
                f"{command} does not know {rest[0]!r}. `doorward help` says what it does."
            )
        if command != "demo":  # which has a folder of its own
            _prepare_keys()
        return starters[command]()
    return _run_management_command(command.replace("-", "_"), rest)


def _starters() -> dict[str, Callable[[], int]]:
    from doorward.starters import alone, doors, serve

    def door(run: Callable[[], None]) -> Callable[[], int]:
        def start() -> int:
            run()
            return 0

        return start

    def serve_all() -> int:
        try:
            return serve.serve()
        except (serve.DoorTaken, alone.AlreadyServed) as taken:
            return _refuse(str(taken))

    def demo() -> int:
        from doorward.starters import demo as show

        return show.demo()

    return {
        "serve": serve_all,
        "portal": door(doors.portal),
        "gateway": door(doors.gateway),
        "worker": door(doors.worker),
        "demo": demo,
    }


def _tools() -> dict[str, Callable[[list[str]], int]]:
    from doorward.starters import backup, doctor

    def with_django(run: Callable[[list[str]], int]) -> Callable[[list[str]], int]:
        def start(words: list[str]) -> int:
            import django

            from doorward.starters import logs

            logs.configure("console")
            django.setup()
            return run(words)

        return start

    return {
        "doctor": with_django(doctor.main),
        "backup": with_django(backup.main_backup),
        "restore": with_django(backup.main_restore),
    }


def _run_management_command(name: str, rest: list[str]) -> int:
    import django
    from django.conf import settings
    from django.core.management import CommandError, get_commands, load_command_class

    from doorward.starters import logs, ready

    if name not in _own_commands():
        return _refuse(
            f"there is no command {name.replace('_', '-')!r}. `doorward help` lists them."
        )
    if not {"-h", "--help"} & set(rest):
        _prepare_keys()
    logs.configure(settings.LOG_FORMAT)
    django.setup()
    command = load_command_class(get_commands()[name], name)
    # Then wrong use ends with the usage and 2, as anywhere.
    setattr(command, "_called_from_command_line", True)  # noqa: B010 - Django's only switch for it
    options = vars(command.create_parser("doorward", name.replace("_", "-")).parse_args(rest))
    # The first operator is made before the first start.
    ready.database()
    try:
        command.execute(*options.pop("args", ()), **options)
    except CommandError as error:
        _refuse(str(error))
        return max(1, error.returncode)
    return 0


def _own_commands() -> dict[str, str]:
    """Return this product's commands and their first help line, without starting Django."""
    package = Path(__file__).parent
    return {path.stem: path.parts[-4] for path in package.glob("*/management/commands/[a-z]*.py")}


def _prepare_keys() -> None:
    data = Path(os.environ.get("DOORWARD_DATA", "").strip() or "data").absolute()
    try:
        keys.prepare(data)
    except OSError as error:
        raise SettingRefused(
            f"can't write into the data folder {data}: {error.strerror}."
        ) from None


def _print_help() -> None:
    others = "  " + "  ".join(sorted(name.replace("_", "-") for name in _own_commands())) + "\n"
    sys.stdout.write(HELP.format(others=others))


def _refuse(sentence: str) -> int:
    sys.stderr.write(f"doorward: {sentence}\n")
    return 2


if __name__ == "__main__":
    sys.exit(main())
