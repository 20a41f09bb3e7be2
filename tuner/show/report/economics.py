"""Economics: what a deployment costs and earns in a month, and the energy it takes."""

import math
from dataclasses import dataclass

from runners.measurement import Measurement
from tuner.scenario.scenario import Scenario

HOURS_PER_MONTH = 730
"""365 x 24 / 12."""

YEAR_S = 365 * 86400


@dataclass(frozen=True, slots=True, kw_only=True)
class Demand:
    """What is to be sold: tokens a month (None: as many as one deployment serves) and dollars for a million."""

    tokens_per_month: float | None = None
    usd_per_million: float | None = None


AS_MUCH_AS_CAN_BE_SERVED = Demand()


@dataclass(frozen=True, slots=True, kw_only=True)
class Month:
    """One month of as many whole deployments as the demand takes.

    tokens/s x 3600 x 730 is what one serves, GPUs x $/GPU-hour x 730 what it costs; revenue is tokens sold x price,
    return is revenue / cost. `tokens` are those that the objective counts.
    """

    capacity: float
    deployments: int
    gpus: int
    tokens: float
    cost: float
    revenue: float | None

    @property
    def utilisation(self) -> float:
        """Tokens sold over tokens that could be served."""
        return self.tokens / (self.capacity * self.deployments)

    @property
    def usd_per_million(self) -> float:
        """Of tokens sold: idle capacity is paid for, too."""
        return self.cost / self.tokens * 1e6

    @property
    def profit(self) -> float | None:
        return None if self.revenue is None else self.revenue - self.cost

    @property
    def return_on_cost(self) -> float | None:
        return None if self.revenue is None else self.revenue / self.cost


def month(scenario: Scenario, level: Measurement, demand: Demand) -> Month:
    """A month at the load that was measured, around the clock."""
    rate = level.output_rate if scenario.objective == "usd_per_million_output_tokens" else level.total_rate
    capacity = rate * 3600 * HOURS_PER_MONTH
    tokens = demand.tokens_per_month or capacity
    deployments = max(math.ceil(tokens / capacity), 1)
    gpus = deployments * scenario.charged_gpus(level.gpus)
    return Month(
        capacity=capacity,
        deployments=deployments,
        gpus=gpus,
        tokens=tokens,
        cost=gpus * scenario.price.usd_per_gpu_second * 3600 * HOURS_PER_MONTH,
        revenue=None if demand.usd_per_million is None else tokens / 1e6 * demand.usd_per_million,
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class Energy:
    """At the all-in power of every GPU charged: watts, tokens/s for each MW, and Wh for a million tokens."""

    watts: float
    output_tokens_per_s_per_mw: float
    total_tokens_per_s_per_mw: float
    wh_per_million_output_tokens: float
    wh_per_million_total_tokens: float


def energy(scenario: Scenario, level: Measurement) -> Energy:
    """Watts / (tokens/s) x 1e6 / 3600 is Wh for a million tokens."""
    watts = scenario.charged_gpus(level.gpus) * scenario.price.all_in_watts_per_gpu
    output, total = level.output_rate, level.total_rate
    return Energy(
        watts=watts,
        output_tokens_per_s_per_mw=output / watts * 1e6,
        total_tokens_per_s_per_mw=total / watts * 1e6,
        wh_per_million_output_tokens=watts / output * 1e6 / 3600,
        wh_per_million_total_tokens=watts / total * 1e6 / 3600,
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class Claim:
    """A published return on investment: dollars, tokens/s/GPU (input and output) and years."""

    text: str
    system: str
    gpus: int
    investment: float
    revenue: float
    tokens_per_s_per_gpu: float
    years: float
    source: str

    @property
    def tokens(self) -> float:
        return self.gpus * self.tokens_per_s_per_gpu * self.years * YEAR_S

    @property
    def usd_per_million(self) -> float:
        """The price of a token that the revenue implies; it is not published."""
        return self.revenue / self.tokens * 1e6

    @property
    def multiple(self) -> float:
        return self.revenue / self.investment


FIFTEENFOLD = Claim(
    text="A $5 million investment in a GB200 NVL72 earns $75 million in token revenue: 15x",
    system="gb200-nvl72",
    gpus=72,
    investment=5e6,
    revenue=75e6,
    tokens_per_s_per_gpu=10_000,
    years=3,
    source="NVIDIA, Blackwell leads on new SemiAnalysis InferenceMAX benchmarks (October 2025), figure 1: DeepSeek-R1, "
    "8K/1K, 10,000 tokens/s/GPU at 50 tokens/s/user",
)
