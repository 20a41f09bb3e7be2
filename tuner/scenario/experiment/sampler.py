"""Who proposes what is tried: the `sampler` of a search in an experiment file."""

from typing import Annotated, Literal, get_args

from pydantic import Field, model_validator

from tuner.scenario.experiment.part import Part, broken, known

SamplerName = Literal["surrogate", "tpe", "gp", "nsga2", "random"]
SAMPLERS: tuple[SamplerName, ...] = get_args(SamplerName)

WITH_START: tuple[SamplerName, ...] = ("tpe", "gp")


class Sampler(Part):
    """Who proposes what is tried next. Another sampler asks the same: a study goes on with any."""

    name: Annotated[SamplerName, known("sampler", lambda: SAMPLERS)] = Field(
        default="surrogate",
        description="surrogate (servetune's own, which begins with predictions); or Optuna's tpe, gp (needs "
        "servetune[gp]), nsga2, random",
    )
    startup_trials: int | None = Field(
        default=None, ge=1, le=1000, description="of tpe and gp: random trials before the model is asked; else 10"
    )
    population_size: int | None = Field(
        default=None, ge=2, le=1000, description="of nsga2: trials in each generation; else 10"
    )

    @model_validator(mode="after")
    def _keys_of_its_own(self) -> "Sampler":
        if self.startup_trials is not None and self.name not in WITH_START:
            raise broken(f"startup_trials goes with name: {' or '.join(WITH_START)}, but got name: {self.name}")
        if self.population_size is not None and self.name != "nsga2":
            raise broken(f"population_size goes with name: nsga2, but got name: {self.name}")
        return self
