"""RecordedPrior: what is predicted of recorded configurations, at the loads that were recorded."""

import math
from collections import defaultdict
from collections.abc import Iterable
from statistics import median

from runners.recorded.recording import Recording, served
from runners.simulated.silicon import Silicon
from runners.simulated.steady_state import SteadyPoint, SteadyState
from search_spaces.config import ServingConfig
from search_spaces.enumerated import EnumeratedSpace
from search_spaces.errors import InfeasibleError
from search_spaces.space import Params
from tuner.scenario.scenario import Scenario
from tuner.search.capacity import LoadRange
from tuner.search.ranking import Candidate, Prior, Ranking


class RecordedPrior(Prior):
    """Predicts what was recorded, and nothing else, at the loads that were recorded.

    What the closed form cannot predict is not left out, since it was served: it is tried last.
    """

    def __init__(self, scenario: Scenario, silicon: Silicon, rows: Iterable[Recording]) -> None:
        super().__init__(scenario, silicon, source="recorded")
        self._rows: dict[ServingConfig, list[Recording]] = defaultdict(list)
        for row in sorted(rows, key=lambda row: row.concurrency):
            self._rows[served(row.config)].append(row)

    def rank(self) -> Ranking:
        space = self.scenario.space
        assert isinstance(space, EnumeratedSpace)
        candidates = [self.predict(space.params(config)) for config in space.configs.values()]
        return Ranking(candidates=tuple(sorted(candidates, key=lambda candidate: candidate.rank)), excluded={})

    def predict(self, params: Params) -> Candidate:
        """The candidate that parameters stand for; its cost is None where there is no prediction."""
        config = self.scenario.space.config(params)
        try:
            return self._candidate(params, config, self._best_point(config))
        except InfeasibleError:
            return Candidate(params=params, objective=None, excess=math.inf)

    def load_range(self, config: ServingConfig) -> LoadRange:
        """The recorded loads; the first guess is the predicted capacity or, without one, the middle."""
        loads = tuple(float(row.concurrency) for row in self._rows[served(config)])
        try:
            guess = self._best_point(config).concurrency
        except InfeasibleError:
            guess = median(loads)
        return LoadRange(lowest=loads[0], highest=loads[-1], guess=guess, only=loads)

    def frontier(self, ranking: Ranking, *, most: int) -> list[tuple[ServingConfig, SteadyPoint]]:  # noqa: ARG002
        """None: what was not chosen is not measured."""
        return []

    def _best_point(self, config: ServingConfig) -> SteadyPoint:
        """The highest recorded load predicted to meet the SLA, or the lowest where none does."""
        points = [self._point(row) for row in self._rows[served(config)]]
        kept = [point for point in points if self._meets(point)]
        return kept[-1] if kept else points[0]

    def _point(self, row: Recording) -> SteadyPoint:
        steady = SteadyState(silicon=self.silicon, config=row.config, workload=self.scenario.workload)
        return steady.at(math.ceil(row.concurrency / row.config.layout.schedulers))
