"""How much may be spent: the `budget` of a search and the `retune` of its champion in an experiment file."""

from pydantic import Field

from tuner.scenario.experiment.part import MOST_REQUESTS, Part


class Budget(Part):
    """When the search stops: whichever comes first."""

    trials: int = Field(default=48, ge=1, le=MOST_REQUESTS, description="configurations tried")
    wall_clock_min: float | None = Field(default=None, gt=0, description="minutes of this run")
    gpu_hours: float | None = Field(default=None, gt=0, description="GPU-hours that trials may hold, start-up included")
    usd: float | None = Field(default=None, gt=0, description="dollars that those GPU-hours may cost")
    monthly_tokens: float | None = Field(
        default=None,
        gt=0,
        description="tokens served a month; a trial then has to be expected to save what trials cost, within a month",
    )


class Retune(Part):
    """How a champion is held against a new release."""

    minimum_effect: float = Field(
        default=0.02, gt=0, le=0.5, description="relative change in cost from which one matters, such as 0.03"
    )
    repeats: int = Field(
        default=6, ge=2, le=100, multiple_of=2, description="lives of a server on each release, taken in turn"
    )
    trials: int = Field(default=16, ge=1, le=MOST_REQUESTS, description="configurations tried on the new release")
    monthly_tokens: float | None = Field(
        default=None, gt=0, description="tokens served a month, as the objective counts them; else a full champion's"
    )
