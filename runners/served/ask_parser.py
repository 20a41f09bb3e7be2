"""What an engine's own argument parser accepts, asked inside the engine's environment.

Its text is run there by `runners.served.installed`, with the path of the engine's own `parser.py` and the name of its
module: it imports nothing of servetune, and writes one line of JSON.
"""

import argparse
import contextlib
import io
import json
import runpy
import sys
from importlib import import_module
from importlib.metadata import PackageNotFoundError, version
from typing import Any


def installed_version(module: str, distributions: list[str]) -> str:
    for name in distributions:
        with contextlib.suppress(PackageNotFoundError):
            return version(name)
    return str(getattr(import_module(module), "__version__", "of unknown version"))


def ask_argparse(parser: argparse.ArgumentParser, argv: list[str]) -> dict[str, Any]:
    options = [option for action in parser._actions for option in action.option_strings]  # noqa: SLF001 no public list
    return {"options": options, "error": complaint(parser, argv)}


def complaint(parser: argparse.ArgumentParser, argv: list[str]) -> str:
    """What the parser says to `argv` before it exits; nothing where it accepts them."""
    said = io.StringIO()
    with contextlib.redirect_stderr(said), contextlib.redirect_stdout(said):
        try:
            parser.parse_args(argv)
        except SystemExit:
            return said.getvalue().strip().rpartition("error: ")[2]
    return ""


def ask_click(command: Any, argv: list[str]) -> dict[str, Any]:
    click = import_module("click")
    options = [option for parameter in command.params for option in parameter.opts if option.startswith("-")]
    error = ""
    try:
        command.make_context("serve", list(argv))
    except click.ClickException as raised:
        error = raised.format_message()
    return {"options": options, "error": error}


def main(own: str, module: str, distributions: str, argv: list[str]) -> None:
    """`own` is the path of a script that declares a parser; `distributions` are separated by commas."""
    found = {"version": installed_version(module, distributions.split(","))}
    script = runpy.run_path(own)
    declared = script["declared"]()
    ask = ask_argparse if isinstance(declared, argparse.ArgumentParser) else ask_click
    settings = script["settings"]() if "settings" in script else []
    sys.stdout.write("\n" + json.dumps({**found, "settings": settings, **ask(declared, argv)}) + "\n")


if __name__ == "__main__":
    main(sys.argv[1], sys.argv[2], sys.argv[3], sys.argv[4:])
