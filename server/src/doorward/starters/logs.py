"""One line per event, for people or for machines, with no secret in it."""

from __future__ import annotations

import logging
import logging.config
import re
from collections.abc import MutableMapping
from typing import Any, Final

import structlog

# A key with one of these in its name is never printed, whoever logs it.
SECRET_NAMES: Final = re.compile(
    r"password|secret|token|cookie|authorization|code$|api_?key", re.IGNORECASE
)


def hide_secrets(
    _logger: object, _method: str, event: MutableMapping[str, Any]
) -> MutableMapping[str, Any]:
    """Replace the value of every key that names a secret."""
    for name in event:
        if SECRET_NAMES.search(name):
            event[name] = "(hidden)"
    return event


def configure(shape: str) -> None:
    """Send every log of this process to standard error, as ``console`` lines or ``json``."""
    steps: list[Any] = [
        structlog.contextvars.merge_contextvars,
        structlog.stdlib.add_log_level,
        structlog.stdlib.add_logger_name,
        structlog.processors.TimeStamper(fmt="iso", utc=True),
        hide_secrets,
    ]
    printer: Any = (
        structlog.processors.JSONRenderer()
        if shape == "json"
        else structlog.dev.ConsoleRenderer(colors=False)
    )
    logging.config.dictConfig(
        {
            "version": 1,
            "disable_existing_loggers": False,
            "formatters": {
                "lines": {
                    "()": structlog.stdlib.ProcessorFormatter,
                    "foreign_pre_chain": steps,
                    "processors": [
                        structlog.stdlib.ProcessorFormatter.remove_processors_meta,
                        structlog.processors.format_exc_info,
                        printer,
                    ],
                }
            },
            "handlers": {"stderr": {"class": "logging.StreamHandler", "formatter": "lines"}},
            "root": {"handlers": ["stderr"], "level": "INFO"},
            "loggers": {
                # Refused input is the sender's matter. Only faults of ours are worth a line.
                "django.request": {"level": "ERROR"},
                "django.security": {"level": "ERROR"},
                "httpx2": {"level": "WARNING"},
            },
        }
    )
    structlog.configure(
        processors=[*steps, structlog.stdlib.ProcessorFormatter.wrap_for_formatter],
        logger_factory=structlog.stdlib.LoggerFactory(),
        wrapper_class=structlog.stdlib.BoundLogger,
        cache_logger_on_first_use=True,
    )
