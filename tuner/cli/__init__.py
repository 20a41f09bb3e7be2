"""The servetune command: reads what the user typed, composes the parts, and shows what came of it."""

import sys
from typing import Annotated

import typer

from search_spaces.errors import InputError
from tuner.cli.arguments import EXIT_INTERRUPTED, EXIT_USAGE
from tuner.cli.champion import champion
from tuner.cli.deploy import deploy
from tuner.cli.doctor import doctor
from tuner.cli.listing import list_known
from tuner.cli.measure import measure
from tuner.cli.report import report
from tuner.cli.reprice import reprice
from tuner.cli.retune import retune
from tuner.cli.simulate import simulate
from tuner.cli.tune import tune
from tuner.cli.ui import ui
from tuner.cli.validate import validate

app = typer.Typer(
    no_args_is_help=True,
    rich_markup_mode="markdown",
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
    help="""Finds the cheapest way to serve a language model that meets its latency SLA.

Start here:

- `servetune list experiments` shows the experiments that ship with it

- `servetune tune gpt-oss-120b-b200-chat` answers one of them in seconds, on simulated hardware

- `servetune simulate gpt-oss-120b-b200-chat --set layout.tensor=4` predicts one configuration

- `servetune report gpt-oss-120b-b200-chat` makes a page of what was found, to forward

- `servetune deploy gpt-oss-120b-b200-chat --target kubernetes -o deployment` writes the files that start the winner

- `servetune retune gpt-oss-120b-b200-chat` says after a release whether to keep, switch or upgrade

`--json` makes any command print JSON for scripts; `servetune --install-completion` teaches your shell the names.

Exit codes: 0 answered, 1 failed, 2 unusable input, 3 no configuration meets the SLA, 130 interrupted.
""",
)


def main() -> None:
    """The console script: input errors are said on one line each and exit with 2, without a traceback."""
    for_scripts = "--json" in sys.argv
    try:
        sys.exit(app(standalone_mode=not for_scripts))
    except InputError as error:
        _stop(str(error), EXIT_USAGE)
    except typer.TyperException as error:
        _stop(error.format_message(), error.exit_code)
    except (KeyboardInterrupt, typer.Abort):
        _stop("interrupted", EXIT_INTERRUPTED)


def _stop(message: str, code: int) -> None:
    """One line, whatever the message is made of."""
    sys.stderr.write(f"servetune: {' '.join(message.split())}\n")
    sys.exit(code)


def _show_version(asked: bool) -> None:
    if asked:
        from importlib.metadata import version

        typer.echo(f"servetune {version('servetune')}")
        raise typer.Exit


@app.callback()
def _options(
    version: Annotated[
        bool, typer.Option("--version", callback=_show_version, is_eager=True, help="Show the version and exit.")
    ] = False,
) -> None:
    pass


SEARCH, LOOK, DEPLOY, KEEP_UP, CHECK = "Search", "Look", "Deploy", "Keep up", "Check"

app.command(name="list", rich_help_panel=SEARCH)(list_known)
app.command(rich_help_panel=SEARCH)(tune)
app.command(rich_help_panel=SEARCH)(simulate)
app.command(rich_help_panel=LOOK)(report)
app.command(rich_help_panel=LOOK)(ui)
app.command(rich_help_panel=DEPLOY)(deploy)
app.command(rich_help_panel=DEPLOY)(measure)
app.add_typer(champion, name="champion", rich_help_panel=KEEP_UP)
app.command(rich_help_panel=KEEP_UP)(retune)
app.command(rich_help_panel=KEEP_UP)(reprice)
app.command(rich_help_panel=CHECK)(doctor)
app.command(rich_help_panel=CHECK)(validate)
