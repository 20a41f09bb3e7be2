"""Scenario: the experiment a search answers."""

from dataclasses import dataclass

from runners.measurement import Measurement
from runners.served.deployment import Installation
from runners.workload.workload import Workload
from search_spaces.config import ServingConfig
from search_spaces.enumerated import EnumeratedSpace
from search_spaces.fit import check
from search_spaces.hardware.system import Price, System
from search_spaces.models.model import Model
from search_spaces.space import SearchSpace
from search_spaces.wording import plural
from tuner.scenario.cost import Cost, Objective, cost, dollars_per_million
from tuner.scenario.sla import Sla


@dataclass(frozen=True, slots=True, kw_only=True)
class Scenario:
    """Asks which of `space`'s ways of serving `model` on at most `gpus` of `system` is cheapest and meets `sla`.

    `installation` is the engine that is measured, where real ones are.
    """

    name: str
    model: Model
    system: System
    gpus: int
    workload: Workload
    sla: Sla
    price: Price
    objective: Objective
    space: SearchSpace
    installation: Installation | None = None

    def check(self, config: ServingConfig) -> None:
        """Raises InfeasibleError for a configuration that is known to be impossible here.

        Of a list, what is in it was served, whatever the laws say.
        """
        if isinstance(self.space, EnumeratedSpace):
            self.space.check(config)
            return
        longest = self.workload.max_request_tokens
        check(self.model, self.system, config, gpus=self.gpus, max_request_tokens=longest)

    def charged_gpus(self, held: int) -> int:
        """GPUs that are paid for by a configuration that holds so many: all that were given.

        Published runs are of different sizes: where they are replayed, each pays for those that it held.
        """
        return held if isinstance(self.space, EnumeratedSpace) else self.gpus

    def left_over(self, held: int) -> int:
        """GPUs that are paid for and not held."""
        return self.charged_gpus(held) - held

    def left_over_in_words(self, held: int) -> str:
        """That GPUs are left over, and charged, as a sentence; empty where none is."""
        rest = self.left_over(held)
        verb = "is" if rest == 1 else "are"
        return f"{rest} of the {plural(held + rest, 'GPU')} {verb} left over, and charged too." if rest else ""

    def cost(self, level: Measurement) -> Cost:
        """What serving at one load costs and yields, by all GPUs that are charged."""
        return cost(level, self.price, gpus=self.charged_gpus(level.gpus))

    def usd_per_million(self, level: Measurement) -> float:
        """Dollars per million tokens of the kind that the objective counts."""
        return self.cost(level).objective(self.objective)

    def usd_per_million_at(self, request_rate: float, *, held: int) -> float:
        """The same of a prediction: so many requests/s, by a configuration that holds so many GPUs."""
        tokens = self.workload.mean_output_tokens
        if self.objective == "usd_per_million_total_tokens":
            tokens += self.workload.mean_input_tokens
        return dollars_per_million(request_rate * tokens, self.charged_gpus(held), self.price)
