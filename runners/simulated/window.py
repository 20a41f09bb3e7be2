"""Window: which completions of a simulated run count."""

import math

from runners.simulated.requests import FEWEST_WARM_UPS, WARM_UP
from runners.simulated.scheduler import Sequence


class Window:
    """Completions after the warm-up.

    In a closed loop the warm-up is over when the requests that began part-way have completed. In open loop it is over
    once WARM_UP times as many have completed as are in flight: by Little's law after WARM_UP + 1 mean stays, when the
    number in flight has all but settled, however the lengths are spread.
    """

    def __init__(self, part_way: int, seats: int) -> None:
        self.left = part_way
        self.closed_loop = part_way > 0
        self.seats = seats
        self.completed = 0
        self.opened = math.inf
        self.in_flight_at_start = 0
        self.in_flight_at_last_arrival: int | None = None

    def open_at_once(self, concurrency: int) -> None:
        """Count from the first request on, with all of the first generation in flight."""
        self.opened = 0.0
        self.in_flight_at_start = concurrency

    def exhausted(self, in_flight: int) -> None:
        """The last request has been sent."""
        self.in_flight_at_last_arrival = in_flight

    def opens(self, sequence: Sequence, now: float, in_flight: int) -> bool:
        """Whether the warm-up ends with this completion.

        Where all requests have come before, those that the server has seats for are not its backlog.
        """
        if self.opened < math.inf:
            return False
        if self.closed_loop:
            self.left -= sequence.arrival == 0
            over = self.left <= 0
        else:
            self.completed += 1
            settled = self.completed >= max(WARM_UP * in_flight, FEWEST_WARM_UPS)
            over = settled or self.in_flight_at_last_arrival is not None
        last = self.in_flight_at_last_arrival
        if over:
            self.opened = now
            self.in_flight_at_start = in_flight if last is None else min(last, self.seats)
        return over

    def growth(self, in_flight: int) -> int:
        """Requests in the system at the window's end (or the last arrival) less those at its start."""
        end = self.in_flight_at_last_arrival
        return (in_flight if end is None else end) - self.in_flight_at_start
