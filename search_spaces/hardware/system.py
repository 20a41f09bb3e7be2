"""Gpu and System: what there is to serve on, and what it costs to hold."""

import datetime as dt
from dataclasses import dataclass
from functools import cache
from typing import Any, Literal, get_args

from search_spaces.errors import InputError, UnknownNameError
from search_spaces.tables import read_csv, read_yaml

PriceList = Literal["hyperscaler", "neocloud", "rental"]
PRICE_LISTS: tuple[PriceList, ...] = get_args(PriceList)


@dataclass(frozen=True, slots=True, kw_only=True)
class Gpu:
    """One GPU: bytes, bytes/s, FLOP/s (dense) and watts."""

    name: str
    memory_bytes: float
    memory_bandwidth: float
    bf16_flops: float
    fp8_flops: float
    fp4_flops: float | None
    power_watts: float

    @property
    def has_fp4(self) -> bool:
        return self.fp4_flops is not None


@dataclass(frozen=True, slots=True, kw_only=True)
class System:
    """A machine type: GPUs joined by NVLink, in nodes joined by a network.

    `nvlink_gpus` is the size of the NVLink domain: a worker may not be larger. Bandwidths are bytes/s for one GPU in
    one direction.
    """

    name: str
    title: str
    silicon_name: str
    gpu: Gpu
    gpus_per_node: int
    nvlink_gpus: int
    max_gpus: int
    nvlink_bandwidth: float
    network_bandwidth: float
    network_latency_s: float
    source: str

    @property
    def kv_link_bandwidth(self) -> float:
        """Bytes/s at which one GPU hands its KV cache to another worker: NVLink inside one domain."""
        return self.nvlink_bandwidth if self.max_gpus <= self.nvlink_gpus else self.network_bandwidth


@dataclass(frozen=True, slots=True, kw_only=True)
class Price:
    """What a GPU-hour costs, and the all-in power behind it, with the table's date and source."""

    usd_per_gpu_hour: float
    all_in_watts_per_gpu: float
    usd_per_kwh: float = 0.0
    source: str = ""

    def __post_init__(self) -> None:
        if self.usd_per_gpu_hour <= 0 or self.all_in_watts_per_gpu <= 0 or self.usd_per_kwh < 0:
            raise InputError(
                "a price needs usd_per_gpu_hour > 0, all_in_watts_per_gpu > 0 and usd_per_kwh >= 0, but got "
                f"{self.usd_per_gpu_hour}, {self.all_in_watts_per_gpu} and {self.usd_per_kwh}"
            )

    @property
    def usd_per_gpu_second(self) -> float:
        """Rent and, where it is charged apart, the energy of one held GPU for a second."""
        return (self.usd_per_gpu_hour + self.usd_per_kwh * self.all_in_watts_per_gpu / 1000) / 3600


@cache
def systems() -> dict[str, System]:
    """Every system that servetune knows, by name."""
    return {name: system_of(name, facts) for name, facts in read_yaml("search_spaces.hardware", "systems.yaml").items()}


def find_system(name: str) -> System:
    """Raises UnknownNameError."""
    try:
        return systems()[name]
    except KeyError:
        raise UnknownNameError("system", name, systems()) from None


def system_of(name: str, facts: dict[str, Any]) -> System:
    """An entry of systems.yaml, its types taken on trust."""
    gpu = Gpu(**facts.pop("gpu"))
    return System(name=name, gpu=gpu, **facts)


def list_price(system: System, price_list: PriceList, on: dt.date | None = None) -> Price:
    """The published price in force on a day (the latest without one).

    Raises InputError where the table has no price for that GPU by then.
    """
    rows = [row for row in read_csv("search_spaces.hardware", "prices.csv") if row["gpu"] == system.gpu.name]
    rows.sort(key=lambda row: row["date"])
    dated = [row for row in rows if on is None or row["date"] <= on.isoformat()]
    if not dated:
        dates = ", ".join(sorted({row["date"] for row in rows}))
        raise InputError(f"no {price_list} price for {system.gpu.name} on or before {on}; valid dates: {dates}")
    row = dated[-1]
    return Price(
        usd_per_gpu_hour=float(row[f"{price_list}_usd_per_gpu_hour"]),
        all_in_watts_per_gpu=float(row["all_in_watts_per_gpu"]),
        source=f"{price_list} list price of {row['date']} ({row['source']})",
    )
