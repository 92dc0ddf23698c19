"""Where allauth asks us: what it may decide and what is ours."""

from __future__ import annotations

from allauth.account.adapter import DefaultAccountAdapter


class AccountAdapter(DefaultAccountAdapter):  # type: ignore[misc]  # allauth ships no types
    """Doorward's answers to allauth's questions."""
