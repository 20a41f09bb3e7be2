"""Migration: a study as it was written before knobs, SLOs and charges had the names and the meaning of today."""

import json
import os
import shutil
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from search_spaces.knobs import EARLIER, KNOBS
from search_spaces.space import DRAFT_LENGTH, METHOD, distribution
from tuner.scenario.sla import Sla, read_slo
from tuner.search.trial import RECORD, Trial, trial_from_json

SUFFIX = ".journal"
QUESTION = "question"
"""Study attribute that held what a study asks."""

ASKED = "asked"
"""Study attribute that holds what a study asks."""

BEFORE = ".before"
"""What follows the name of a journal as it was before it was migrated."""

SUMMARY_KEYS = {"fell_out": "excluded"}
SPECULATION = "speculation"
"""The knob that was a method and a length in one, such as `eagle3:2`."""

HEAD = 8
"""Entries among which a study says what it asks: it is written when the study is made."""

# Optuna's JournalOperation, as far as knobs stand in it.
SET_STUDY_USER_ATTR, CREATE_TRIAL, SET_TRIAL_PARAM, SET_TRIAL_STATE_VALUES = 2, 4, 5, 6
SET_TRIAL_USER_ATTR, SET_TRIAL_SYSTEM_ATTR = 8, 9

FIXED = "fixed_params"
CONSTRAINTS = "constraints:"
"""Where Optuna keeps what an enqueued trial was given, and how the names of its constraints begin."""

Entry = dict[str, Any]


def is_earlier(lines: Sequence[bytes]) -> bool:
    """Whether the lines of a journal are of the earlier vocabulary."""
    return any(b'"user_attr":{"question":' in line for line in lines[:HEAD])


def asked_in(lines: Iterable[bytes]) -> dict[str, Any] | None:
    """What a study asks, in today's words, by the first lines of its journal; None where they do not say.

    Raises ValueError, LookupError, TypeError or AttributeError for what is no journal of a study.
    """
    for line in lines:
        attribute = json.loads(line).get("user_attr", {})
        if QUESTION in attribute:
            return asked_now(attribute[QUESTION])
        if ASKED in attribute:
            return dict(attribute[ASKED])
    return None


def migrate(path: Path, lines: Sequence[bytes]) -> None:
    """Writes a journal anew in today's vocabulary; the file as it was is kept beside it.

    The caller holds the study's lock. The new file is written aside and then takes the old one's place, so whoever
    reads meanwhile, and whoever comes after a process that was killed, finds one of the two, whole.
    """
    new = path.with_suffix(".migrating")
    with new.open("wb") as file:
        file.writelines(json.dumps(entry, separators=(",", ":")).encode() + b"\n" for entry in migrated(lines))
        file.flush()
        os.fsync(file.fileno())
    _keep_before(path)
    new.replace(path)


def _keep_before(path: Path) -> None:
    """A copy of the file under a name of its own, once."""
    content = path.read_bytes()
    kept = path.with_name(path.name + BEFORE)
    while kept.exists() and kept.read_bytes() != content:
        kept = kept.with_name(f"{kept.name}.1")
    if not kept.exists():
        part = kept.with_name(f"{kept.name}.part")
        shutil.copy2(path, part)
        part.replace(kept)


def migrated(lines: Iterable[bytes]) -> list[Entry]:
    """The entries of an earlier journal in today's vocabulary, as if they had been written so.

    What is drawn, enqueued and asked has today's names; numbers are drawn in order. Costs and constraints are those
    that the trials' own records come to today: all GPUs are charged, and a confidence is that of all SLOs together.
    Raises ValueError, LookupError, TypeError or AttributeError for what is no journal of a study.
    """
    entries = [json.loads(line) for line in lines]
    rewriting = _Rewriting(entries)
    return [new for entry in entries for new in rewriting.of(entry)]


class _Rewriting:
    """What each entry becomes, given all of them."""

    def __init__(self, entries: Sequence[Entry]) -> None:
        attributes = [entry["user_attr"] for entry in entries if entry["op_code"] == SET_STUDY_USER_ATTR]
        self.asked = next(asked_now(attribute[QUESTION]) for attribute in attributes if QUESTION in attribute)
        self.renamed = any(attribute.get(QUESTION, self.asked) != self.asked for attribute in attributes)
        limits = {key: value for key, value in self.asked["sla"].items() if key != "confidence"}
        slos = tuple(read_slo(key, limit) for key, limit in limits.items())
        self.sla = Sla(slos=slos, confidence=self.asked["sla"].get("confidence"))
        records = (entry for entry in entries if RECORD in entry.get("user_attr", {}))
        self.trials: dict[int, Trial] = {
            entry["trial_id"]: trial_from_json(entry["user_attr"][RECORD])
            for entry in records
            if entry["op_code"] == SET_TRIAL_USER_ATTR
        }

    def of(self, entry: Entry) -> Iterator[Entry]:
        kind = entry["op_code"]
        if kind == SET_STUDY_USER_ATTR:
            yield entry | {"user_attr": self._attribute(entry["user_attr"])}
        elif kind == CREATE_TRIAL and FIXED in entry.get("system_attrs", {}):
            fixed = params_now(entry["system_attrs"][FIXED])
            yield entry | {"system_attrs": {**entry["system_attrs"], FIXED: fixed}}
        elif kind == SET_TRIAL_PARAM:
            yield from _drawn_now(entry)
        elif kind == SET_TRIAL_STATE_VALUES and entry.get("values"):
            yield entry | {"values": [self._charged(entry["trial_id"], value) for value in entry["values"]]}
        elif kind == SET_TRIAL_SYSTEM_ATTR:
            yield entry | {"system_attr": self._constraints(entry["trial_id"], entry["system_attr"])}
        else:
            yield entry

    def _attribute(self, attribute: Mapping[str, Any]) -> dict[str, Any]:
        if QUESTION in attribute:
            return {ASKED: self.asked}
        if "experiment" in attribute and self.renamed:  # its text is no file that could be read today
            kept = {key: value for key, value in attribute["experiment"].items() if key != "text"}
            return {"experiment": kept}
        if "summary" in attribute:
            return {"summary": {SUMMARY_KEYS.get(key, key): value for key, value in attribute["summary"].items()}}
        return dict(attribute)

    def _charged(self, trial: int, value: float) -> float:
        """All GPUs that were given are charged, but published runs are of different sizes."""
        record = self.trials.get(trial)
        if record is None or record.ending != "measured" or self.asked.get("runner") == "recorded":
            return value
        return value * float(self.asked["gpus"]) / record.measurement.gpus

    def _constraints(self, trial: int, attribute: Mapping[str, Any]) -> dict[str, Any]:
        record = self.trials.get(trial)
        if record is None or record.ending != "measured":
            return dict(attribute)
        excess = self.sla.excess(record.measurement)
        return {key: excess.get(key.removeprefix(CONSTRAINTS), value) for key, value in attribute.items()}


# Names and values


def asked_now(asked: Mapping[str, Any]) -> dict[str, Any]:
    """What a study asked, by today's keys."""
    return {**asked, "space": values_now(asked["space"])} if "space" in asked else dict(asked)


def values_now(space: Mapping[str, Sequence[Any]]) -> dict[str, Sequence[Any]]:
    """Values to choose from, by today's names.

    Pairs of method and draft length become the methods and the lengths that stood in them: where these make more pairs
    than were listed, there is more to choose from.
    """
    found = {EARLIER.get(name, name): values for name, values in space.items() if name != SPECULATION}
    if SPECULATION in space:
        methods, lengths = _split(space[SPECULATION])
        found |= {METHOD: methods} | ({DRAFT_LENGTH: lengths} if lengths else {})
    return found


def params_now(params: Mapping[str, Any]) -> dict[str, Any]:
    """Drawn or enqueued parameters by today's names."""
    found: dict[str, Any] = {}
    for name, value in params.items():
        if name == SPECULATION:
            (method,), lengths = _split([value])
            found |= {METHOD: method, **dict(zip((DRAFT_LENGTH,), lengths, strict=False))}
        else:
            found[EARLIER.get(name, name)] = value
    return found


def _drawn_now(entry: Entry) -> Iterator[Entry]:
    from optuna.distributions import distribution_to_json, json_to_distribution

    name, drawn_from = entry["param_name"], json_to_distribution(entry["distribution"])
    choices = {EARLIER.get(name, name): drawn_from.choices}  # type: ignore[attr-defined]
    if name == SPECULATION:
        choices = dict(zip((METHOD, DRAFT_LENGTH), _split(drawn_from.choices), strict=True))  # type: ignore[attr-defined]
    value = drawn_from.to_external_repr(entry["param_value_internal"])
    for knob, one in params_now({name: value}).items():
        now = distribution(KNOBS[knob], tuple(choices[knob]))
        internal, text = now.to_internal_repr(one), distribution_to_json(now)
        yield entry | {"param_name": knob, "param_value_internal": internal, "distribution": text}


def _split(speculations: Iterable[str]) -> tuple[list[str], list[int]]:
    """Methods and lengths of `none`, `eagle3:2` and so on, each once."""
    pairs = [text.partition(":") for text in speculations]
    methods = list(dict.fromkeys(method for method, _, _ in pairs))
    return methods, sorted({int(length) for _, _, length in pairs if length})
