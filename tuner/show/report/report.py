"""Report: everything that is to be said about a finished study, worked out once."""

from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property

from tuner.scenario.sla import Slo
from tuner.search.trial import Trial
from tuner.show.report.binding import Binding, what_binds
from tuner.show.report.contender import Contender
from tuner.show.report.economics import AS_MUCH_AS_CAN_BE_SERVED, Demand, Energy, Month, energy, month
from tuner.show.report.importance import Importance, importance
from tuner.show.report.shadow_prices import Cheaper, Nearby, ShadowPrice, menu, nearest_cheaper, shadow_prices
from tuner.study.finished_study import FinishedStudy


@dataclass(frozen=True, kw_only=True)
class Report:
    """A study's answer with its reasons. `champion` is what serves today, where that is known.

    `command` is how the report was asked for. Every property raises InputError where nothing was measured.
    """

    finished: FinishedStudy
    demand: Demand = AS_MUCH_AS_CAN_BE_SERVED
    champion: Contender | None = None
    command: str = ""

    @property
    def winner(self) -> Trial:
        return self.finished.winner

    @cached_property
    def contenders(self) -> list[Contender]:
        """The winner, the engine's default and the champion, as far as they are known."""
        return list(self._contenders())

    def _contenders(self) -> Iterator[Contender]:
        found = self.finished
        label = "Winner" if found.meets_sla else "Nearest"
        yield Contender(role="winner", label=label, config=found.winning_config, measurement=self.winner.measurement)
        default = found.baseline
        if default is not None and default.config is not None:
            yield Contender(role="default", label="Default", config=default.config, measurement=default.measurement)
        if self.champion is not None:
            yield self.champion

    @cached_property
    def binding(self) -> Binding:
        return what_binds(self.finished)

    @cached_property
    def importance(self) -> Importance | None:
        return importance(self.finished)

    @cached_property
    def shadow_prices(self) -> list[ShadowPrice]:
        return shadow_prices(self.finished)

    @cached_property
    def nearest_cheaper(self) -> Cheaper | None:
        return nearest_cheaper(self.finished)

    @property
    def nearest_slo(self) -> Slo:
        """The SLO that the winner has least headroom to."""
        return self.finished.scenario.sla.nearest(self.winner.measurement)

    @cached_property
    def menu(self) -> list[Nearby]:
        return list(menu(self.finished, self.nearest_slo))

    @cached_property
    def month(self) -> Month:
        return self.month_of(self.contenders[0])

    def month_of(self, contender: Contender) -> Month:
        scenario = self.finished.scenario
        return month(scenario, contender.measurement, self.demand)

    @cached_property
    def energy(self) -> Energy:
        return energy(self.finished.scenario, self.winner.measurement)

    def objective(self, contender: Contender) -> float:
        """Dollars per million tokens."""
        scenario = self.finished.scenario
        return scenario.usd_per_million(contender.measurement)
