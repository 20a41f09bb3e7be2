"""Scenario: the experiment a search answers."""

from dataclasses import dataclass

from runners.served.deployment import Installation
from runners.workload.workload import Workload
from search_spaces.config import ServingConfig
from search_spaces.enumerated import EnumeratedSpace
from search_spaces.fit import check
from search_spaces.hardware.system import Price, System
from search_spaces.models.model import Model
from search_spaces.space import SearchSpace
from tuner.scenario.cost import Objective
from tuner.scenario.sla import Sla


@dataclass(frozen=True, slots=True, kw_only=True)
class Scenario:
    """Asks which of `space`'s ways of serving `model` on at most `gpus` of `system` is cheapest and keeps `sla`.

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
