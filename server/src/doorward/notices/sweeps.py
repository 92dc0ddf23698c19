"""The notices room's deferred work."""

from __future__ import annotations

from doorward.notices import outbox

SWEEPS = [("mail", 0.5, outbox.send_due)]
