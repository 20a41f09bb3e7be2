"""How long each state of a real server may take."""

from dataclasses import dataclass


@dataclass(frozen=True, slots=True, kw_only=True)
class TimeLimits:
    """How long each state of a server may take, in seconds.

    `errors_s` is for how long a server that starts may answer with errors, and `dying_s` for how long one may live
    whose engine has died. `stall_s` is the longest time without any token under load.
    """

    start_s: float = 1800.0
    load_s: float = 1200.0
    stall_s: float = 60.0
    stop_s: float = 10.0
    probe_s: float = 60.0
    errors_s: float = 30.0
    dying_s: float = 15.0
    poll_s: float = 0.25
