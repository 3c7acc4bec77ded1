"""The two ways out: an error that the user can mend, and a row that is not wanted."""

from __future__ import annotations


class UserError(ValueError):
    """Something the user can put right. The message is one line: what is wrong, where, what to do."""


class Rejected(Exception):
    """Raised by a stage to drop one row or phrase. Never ends a run: the pipeline counts the reason.

    Args:
        reason: a counter's name, ``lower_case_words``, with no content of the row in it.
        detail: free text for a log line or the report; may quote the row, so escape it before showing.
        transient: a later build may have more luck with the same row.
        rows: how many rows are lost, where damage takes several.
    """

    def __init__(self, reason: str, detail: str = "", *, transient: bool = False, rows: int = 1) -> None:
        super().__init__(f"{reason}: {detail}" if detail else reason)
        self.reason = reason
        self.detail = detail
        self.transient = transient
        self.rows = rows
