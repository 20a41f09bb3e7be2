"""Cost: dollars per million tokens, from the GPUs charged and the energy they draw."""

from dataclasses import dataclass
from typing import Literal, get_args

from runners.measurement import Measurement
from search_spaces.hardware.system import Price

Objective = Literal["usd_per_million_output_tokens", "usd_per_million_total_tokens"]
OBJECTIVES: tuple[Objective, ...] = get_args(Objective)
OBJECTIVE_TITLES: dict[Objective, str] = {
    "usd_per_million_output_tokens": "$/M output tokens",
    "usd_per_million_total_tokens": "$/M total tokens",
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Cost:
    """What serving at one load costs and yields. GPUs are those charged: idle and left over, too.

    `total` counts input and output tokens. The tokens/s/MW are output tokens over their all-in power.
    """

    usd_per_million_output_tokens: float
    usd_per_million_total_tokens: float
    output_tokens_per_s_per_gpu: float
    total_tokens_per_s_per_gpu: float
    tokens_per_s_per_user: float
    tokens_per_s_per_mw: float

    def objective(self, objective: Objective) -> float:
        """Dollars."""
        value: float = getattr(self, objective)
        return value


def dollars_per_million(tokens_per_s: float, gpus: int, price: Price) -> float:
    """GPUs x $/GPU-second / (tokens/s) x 1e6; energy included where the price charges it apart."""
    return gpus * price.usd_per_gpu_second / tokens_per_s * 1e6


def cost(measurement: Measurement, price: Price, *, gpus: int) -> Cost:
    """The cost of what was measured, by the GPUs that are charged: `Scenario.cost` knows how many."""
    return Cost(
        usd_per_million_output_tokens=dollars_per_million(measurement.output_rate, gpus, price),
        usd_per_million_total_tokens=dollars_per_million(measurement.total_rate, gpus, price),
        output_tokens_per_s_per_gpu=measurement.output_rate / gpus,
        total_tokens_per_s_per_gpu=measurement.total_rate / gpus,
        tokens_per_s_per_user=measurement.interactivity,
        tokens_per_s_per_mw=measurement.output_rate / (gpus * price.all_in_watts_per_gpu / 1e6),
    )
