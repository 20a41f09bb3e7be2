"""`space:` of an experiment file: knobs of the search, each with the values left to choose from."""

from typing import Annotated, Any

from pydantic import BeforeValidator, Field, PlainValidator

from search_spaces.config import Value
from search_spaces.engines.folders import engine_names
from search_spaces.errors import InputError
from search_spaces.knob import Knob
from search_spaces.knobs import KNOBS, find_knob
from search_spaces.strict_yaml import SHOWN, shown
from tuner.scenario.experiment.part import broken


def _name(value: object) -> object:
    if isinstance(value, str):
        try:
            find_knob(value[:SHOWN])
        except InputError as error:
            raise broken(str(error)) from None
    return value


def _value(value: object) -> object:
    if isinstance(value, bool) or not isinstance(value, (int, str)):
        raise broken(f"must be a whole number or a name, but got {shown(value)}")
    return value if isinstance(value, int) else value[:SHOWN]


def _completion(schema: dict[str, Any]) -> None:
    schema.pop("propertyNames", None)
    properties = {name: _schema_of(knob) for name, knob in KNOBS.items() if knob.is_listable}
    schema |= {"properties": properties, "additionalProperties": False}


def _schema_of(knob: Knob) -> dict[str, Any]:
    items: dict[str, Any] = {"type": "string"}
    if knob.is_number:
        items = {"type": "integer", "minimum": max(knob.least, 1), "maximum": knob.most}
    elif names := knob.names or (engine_names() if knob.name == "engine" else ()):
        items = {"enum": list(names)}
    return {"description": knob.doc, "type": "array", "items": items, "minItems": 1, "uniqueItems": True}


Space = Annotated[
    dict[
        Annotated[str, BeforeValidator(_name)],
        list[Annotated[Value, PlainValidator(_value, json_schema_input_type=int | str)]],
    ],
    Field(
        json_schema_extra=_completion,
        description="knobs of the search, each with the values left to choose from; else all of its grid",
    ),
]
