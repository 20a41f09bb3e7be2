"""Errors that a user can act on: each says what was found, what holds, and what is valid."""

import difflib
from collections.abc import Iterable


class InputError(Exception):
    """Something that the user gave cannot be used; the message says where, what was found and what is valid."""


class UnknownNameError(InputError):
    """A name that is not known; the message lists the valid ones, the nearest first."""

    def __init__(self, what: str, found: object, valid: Iterable[object]) -> None:
        names = list(valid)
        if isinstance(found, int):
            choices = [str(number) for number in sorted(names, key=lambda number: abs(int(str(number)) - found))]
        else:
            choices = nearest_first(found if isinstance(found, str) else str(found), [str(name) for name in names])
        super().__init__(f"unknown {what} {str(found)!r}; valid: {', '.join(choices)}")


NO_KERNEL_DATA = "no kernel data"
"""The cause of an InfeasibleError that says nothing of what can be served, only of what can be predicted."""


class InfeasibleError(Exception):
    """A configuration that cannot be served, which is known without running it.

    `cause` is a short class of reasons to count by (memory, divisibility, ...); the message gives the case.
    """

    def __init__(self, cause: str, detail: str) -> None:
        super().__init__(f"{cause}: {detail}")
        self.cause = cause
        self.detail = detail


def nearest_first(found: str, valid: list[str]) -> list[str]:
    """`valid`, ordered by likeness to `found`; names that begin with it come first."""

    def unlikeness(name: str) -> tuple[bool, float]:
        likeness = difflib.SequenceMatcher(None, found.lower(), name.lower()).ratio()
        return not name.lower().startswith(found.lower()), -likeness

    return sorted(valid, key=unlikeness)
