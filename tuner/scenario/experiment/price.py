"""What a GPU-hour costs: the `price` of an experiment file."""

import datetime as dt
from contextlib import suppress
from dataclasses import replace
from typing import Annotated, ClassVar

from pydantic import BeforeValidator, Field

from search_spaces.hardware.system import PRICE_LISTS, Price, PriceList, System, list_price
from tuner.scenario.experiment.part import Part, known


def _quoted_date(value: object) -> object:
    """A date that YAML was told to read as text is still one."""
    if isinstance(value, str):
        with suppress(ValueError):
            return dt.date.fromisoformat(value)
    return value


class ListPrice(Part):
    """A published price by list and date."""

    kind: ClassVar[str] = "list"

    price_list: Annotated[PriceList, known("price list", lambda: PRICE_LISTS)] = Field(
        alias="list", description=f"{', '.join(PRICE_LISTS)}; or give `usd_per_gpu_hour` instead"
    )
    date: Annotated[dt.date | None, BeforeValidator(_quoted_date)] = Field(
        default=None, description="prices in force on this day; else the latest"
    )
    usd_per_kwh: float = Field(default=0, ge=0, description="energy where it is charged apart")

    def price(self, system: System) -> Price:
        """Raises InputError where the table has no such price."""
        return replace(list_price(system, self.price_list, self.date), usd_per_kwh=self.usd_per_kwh)


class OwnPrice(Part):
    """A price of one's own."""

    kind: ClassVar[str] = "usd_per_gpu_hour"

    usd_per_gpu_hour: float = Field(gt=0)
    all_in_watts_per_gpu: float | None = Field(
        default=None, gt=0, description="power with cooling and losses; else the price table's latest"
    )
    usd_per_kwh: float = Field(default=0, ge=0, description="energy where it is charged apart")

    def price(self, system: System) -> Price:
        """Raises InputError where the power is left to a table that has none."""
        watts = self.all_in_watts_per_gpu or list_price(system, "hyperscaler").all_in_watts_per_gpu
        return Price(
            usd_per_gpu_hour=self.usd_per_gpu_hour,
            all_in_watts_per_gpu=watts,
            usd_per_kwh=self.usd_per_kwh,
            source="given in the experiment",
        )


def price_tag(value: object) -> str:
    if isinstance(value, dict):
        return "<own>" if "usd_per_gpu_hour" in value and "list" not in value else "<list>"
    return "<own>" if isinstance(value, OwnPrice) else "<list>"
