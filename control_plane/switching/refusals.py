"""Why a verb is not done: what the Admin API answers with."""

from __future__ import annotations


class Refusal(Exception):
    """It is not done. `code` is stable, the text says what, `remedy` what to do."""

    def __init__(self, code: str, what: str, remedy: str) -> None:
        super().__init__(what)
        self.code = code
        self.remedy = remedy


class Missing(Refusal):
    """Something that was named is not there."""
