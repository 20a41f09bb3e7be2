"""How a configuration is started by hand: the commands of its workers, as a shell takes them."""

import shlex

from runners.served.deployment import Installation
from search_spaces.config import ServingConfig
from search_spaces.engines.commands import Placement, commands
from search_spaces.models.model import Model
from search_spaces.wording import plural


def how_to_start(model: Model, config: ServingConfig, installation: Installation | None = None) -> str:
    """The commands and config files that start a configuration, with what else it takes as comments.

    With what an installation loads and adds, where it was measured there.
    """
    here = installation or Installation()
    added = here.args_for(config) if installation else ()
    lines: list[str] = []
    for command in commands(model, config, placement=Placement(checkpoint=here.checkpoint, draft=here.draft)):
        lines.append(f"# {command.role}: {command.copies} x {plural(command.gpus, 'GPU')}")
        env = {**command.env, **here.env}
        words = [f"{name}={shlex.quote(value)}" for name, value in env.items()]
        lines.append(" ".join([*words, shlex.join((*command.argv, *added))]))
        for name, text in command.files.items():
            lines += [f"# {name}", text.rstrip()]
        if command.note:
            lines.append(f"# {command.note}")
    return "\n".join(lines)
