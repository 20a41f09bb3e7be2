"""Row: a line of a file of published measurements, read as it is written."""

import datetime as dt
import math
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

from runners.recorded.table import lines_of
from search_spaces.config import Weights
from search_spaces.errors import InputError
from search_spaces.hardware.system import systems

COLUMNS = (
    "id",
    "silicon_data_source",
    "backend",
    "backend_version",
    "model_path",
    "system",
    "precision",
    "mode",
    "isl",
    "osl",
    "batch_size",
    "tp_size",
    "pp_size",
    "attention_dp_size",
    "moe_ep_size",
    "prefill_num_workers",
    "prefill_tp_size",
    "prefill_pp_size",
    "prefill_attention_dp_size",
    "prefill_moe_ep_size",
    "decode_num_workers",
    "decode_tp_size",
    "decode_pp_size",
    "decode_attention_dp_size",
    "decode_moe_ep_size",
    "silicon_ttft_ms",
    "silicon_tpot_ms",
)
# The checkpoints of the rows by the name of the model whose architecture they have.
MODELS = {
    "deepseek-ai/DeepSeek-R1": "deepseek-r1",
    "deepseek-ai/DeepSeek-V3": "deepseek-r1",
    "nvidia/DeepSeek-R1-NVFP4": "deepseek-r1",
    "nvidia/DeepSeek-V3.1-NVFP4": "deepseek-r1",
    "openai/gpt-oss-120b": "gpt-oss-120b",
    "meta-llama/Llama-3.1-70B": "llama-3.3-70b",
    "meta-llama/Llama-3.1-8B-Instruct": "llama-3.1-8b",
    "nvidia/Llama-3.1-8B-Instruct-FP8": "llama-3.1-8b",
    "moonshotai/Kimi-K2.5": "kimi-k2.5",
    "Qwen/Qwen3-235B-A22B-FP8": "qwen3-235b",
    "Qwen/Qwen3-32B": "qwen3-32b",
    "nvidia/Qwen3-32B-NVFP4": "qwen3-32b",
    "MiniMaxAI/MiniMax-M2.5": "minimax-m2.5",
}
# (dense models, models with experts): `fp8` rows of the latter ran block-scaled checkpoints.
WEIGHTS: dict[str, tuple[Weights, Weights]] = {
    "bf16": ("bf16", "bf16"),
    "fp8": ("fp8", "fp8_block"),
    "fp4": ("nvfp4", "nvfp4"),
}
SYSTEMS = {system.silicon_name: name for name, system in systems().items()}

LEAST_MS = 0.1
"""Below any TTFT or TPOT of a served model: TPOT in seconds, put into a column of milliseconds, is below it."""


@dataclass(frozen=True, slots=True)
class Row:
    """A line of the file: its cells and what is read out of the text in `silicon_data_source`."""

    cells: Mapping[str, str]
    where: str

    def text(self, column: str) -> str:
        return self.cells[column] or ""

    def number(self, column: str, default: float = math.nan) -> float:
        text = self.text(column)
        try:
            return float(text) if text else default
        except ValueError:
            raise InputError(f"{self.where}: column {column} must hold a number, but has {text!r}") from None

    def tokens(self, column: str) -> int:
        """Raises InputError for what is no count of tokens."""
        count = self.number(column)
        if not 1 <= count < math.inf:
            raise InputError(
                f"{self.where}: column {column} must hold a number of tokens, but has {self.text(column)!r}"
            )
        return int(count)

    def seconds(self, column: str) -> float:
        """Of a column in milliseconds. Raises InputError for a time that no engine has: its unit will be another."""
        time = self.number(column)
        if not LEAST_MS <= time < math.inf:
            raise InputError(
                f"{self.where}: column {column} must hold milliseconds, {LEAST_MS:g} or more, "
                f"but has {self.text(column)!r}"
            )
        return time / 1000

    def size(self, column: str) -> int:
        """A parallel size; absent and 0 both mean 1."""
        return max(int(self.number(column, 1)), 1)

    @property
    def source(self) -> str:
        return self.text("silicon_data_source")

    @property
    def concurrency(self) -> int:
        found = re.search(r"silicon_concurrency=(\d+)", self.source)
        return int(found[1]) if found else 0

    @property
    def date(self) -> dt.date | None:
        found = re.search(r"measured=(\d{4}-\d\d-\d\d)", self.source)
        return dt.date.fromisoformat(found[1]) if found else None

    @property
    def measurement(self) -> tuple[object, ...]:
        """What two copies of one measurement have in common: labels differ, the figures to six digits do not."""
        figures = (f"{self.number(name):.6g}" for name in ("silicon_ttft_ms", "silicon_tpot_ms"))
        return *figures, self.text("system"), self.text("isl"), self.text("osl"), self.concurrency

    @property
    def aggregated(self) -> bool:
        return self.text("mode") == "agg"

    @property
    def workers_known(self) -> bool:
        return self.aggregated or bool(self.text("prefill_num_workers") and self.text("decode_num_workers"))

    @property
    def gpus(self) -> int:
        return self.size("tp_size") * self.size("attention_dp_size")


def rows_of(path: Path) -> Iterator[Row]:
    """Raises InputError for a file without the columns."""
    return (Row(*line) for line in lines_of(path, COLUMNS, "recordings", note=" (times in milliseconds)"))


def weights_name(row: Row) -> str:
    named = row.text("precision") or ("fp4" if "NVFP4" in row.text("model_path") else "")
    return named or ("fp8" if "FP8" in row.text("model_path") else "bf16")
