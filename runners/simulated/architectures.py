"""Architectures: the shapes that AIConfigurator has kernel times of, as the checkpoints' configurations state them."""

import json
from collections.abc import Iterator, Mapping
from functools import cache
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from search_spaces.models.model import Model

SUFFIX = "_config.json"
EXPERTS = ("n_routed_experts", "num_experts", "num_local_experts")
EXPERTS_PER_TOKEN = ("num_experts_per_tok", "num_experts_per_token", "top_k_experts")
OTHER_HEADS = ("swa_num_key", "num_global_key", "global_head")
"""Keys of a configuration whose layers keep different heads: no one number describes its cache."""

Shape = Mapping[str, int]
"""By the keys of a model's facts; what a configuration does not state is left out."""


def differences(model: Model) -> Iterator[str]:
    """Facts in which a model is not of the shape whose times its `silicon_name` stands for, as broken laws by key.

    Nothing of a name that is not bundled: it has no times.
    """
    for key, stated in (shape_of(model.silicon_name) or {}).items():
        part = model.attention if key.startswith("attention.") else model
        found = getattr(part, key.removeprefix("attention."))
        if found != stated:
            yield f"{key}: must be {stated} as of {model.silicon_name}, whose kernel times it takes, but got {found}"


@cache
def shape_of(silicon_name: str) -> Shape | None:
    """None for a name that is not bundled."""
    folder = _folder()
    path = folder / f"{silicon_name.replace('/', '--')}{SUFFIX}" if folder else None
    if path is None or not path.is_file():
        return None
    config = json.loads(path.read_text(encoding="utf-8"))
    config |= config.get("text_config", {})
    found = {
        "layers": config.get("num_hidden_layers"),
        "hidden_size": config.get("hidden_size"),
        "query_heads": config.get("num_attention_heads"),
        **_cache(config),
        **_experts(config),
    }
    return {key: value for key, value in found.items() if isinstance(value, int)}


def bundled_names() -> list[str]:
    """Every `silicon_name` that there is."""
    folder = _folder()
    names = (path.name.removesuffix(SUFFIX) for path in folder.glob(f"*{SUFFIX}")) if folder else ()
    return sorted(name.replace("--", "/") for name in names if not name.endswith("_hf_quant"))


def _folder() -> Path | None:
    """Nothing is imported; None where AIConfigurator is not installed."""
    found = find_spec("aiconfigurator_core")
    folders = found.submodule_search_locations if found else None
    return Path(folders[0]) / "model_configs" if folders else None


def _cache(config: Mapping[str, Any]) -> dict[str, Any]:
    """What a token leaves in the KV cache: one latent, or keys and values of each head, where all layers are alike."""
    latent = None
    if "kv_lora_rank" in config:
        latent = config["kv_lora_rank"] + config["qk_rope_head_dim"]
    elif "compress_ratios" in config:  # DeepSeek-V4: one latent head serves as key and value
        latent = config["head_dim"]
    if latent is not None:
        return {"attention.latent_width": latent, "attention.kv_heads": 0}
    heads = config["num_attention_heads"]
    width = config.get("head_dim") or config["hidden_size"] // heads
    if config.get("v_head_dim", width) != width or any(key.startswith(OTHER_HEADS) for key in config):
        return {"attention.latent_width": 0}
    kv_heads = config.get("num_key_value_heads", heads)
    return {"attention.latent_width": 0, "attention.kv_heads": kv_heads, "attention.head_dim": width}


def _experts(config: Mapping[str, Any]) -> dict[str, Any]:
    """Nothing where it is not clear whether there are any."""
    counts = [config[key] for key in EXPERTS if config.get(key)]
    if counts:
        chosen = next((config[key] for key in EXPERTS_PER_TOKEN if key in config), None)
        width = config.get("moe_intermediate_size") or config.get("intermediate_size")
        return {"experts": counts[0], "experts_per_token": chosen, "expert_width": width}
    if any("expert" in key or "moe" in key for key in config):
        return {}
    return {"experts": 0, "experts_per_token": 0, "expert_width": config.get("intermediate_size")}
