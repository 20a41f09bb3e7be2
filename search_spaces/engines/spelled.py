"""The command of an engine that is described as data: arguments with placeholders, and an option for each knob."""

from search_spaces.engines.facts import Argument, EngineFacts, Spelling
from search_spaces.engines.worker import Rendered, Worker, options


def render(worker: Worker, facts: EngineFacts) -> Rendered:
    """`command` with what its placeholders stand for, and the options of `knobs` in their order."""
    stands_for = {
        "python": "python",
        "checkpoint": worker.checkpoint,
        "host": worker.placement.host,
        "port": str(worker.port),
        "draft": worker.draft,
    }
    argv = tuple(part.format(**stands_for) for part in facts.command)
    return Rendered(argv=argv + knob_options(worker, facts), env=dict(facts.env))


def knob_options(worker: Worker, facts: EngineFacts) -> tuple[str, ...]:
    """The options of the knobs that are spelled as data."""
    argv: tuple[str, ...] = ()
    for knob, spelling in facts.knobs.items():
        if spelling.option and not (knob == "precision.weights" and not worker.quantization):
            argv += _option(spelling, _argument(worker, knob, spelling))
    return argv


def _argument(worker: Worker, knob: str, spelling: Spelling) -> Argument:
    value = worker.knob(knob)
    if value is None or str(value) in spelling.values:
        return spelling.values.get(str(value))
    for size in spelling.times:
        value *= worker.knob(size)
    return value  # type: ignore[no-any-return]


def _option(spelling: Spelling, argument: Argument) -> tuple[str, ...]:
    if spelling.option.endswith("=") and argument is not None and argument is not False:
        return (f"{spelling.option}{argument}",)
    return options({spelling.option: argument})
