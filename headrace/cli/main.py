"""Entry of the `headrace` command: gathers the verbs, and turns every error into one line and an exit code."""

import importlib
import os
import sys
import traceback
from collections.abc import Mapping
from types import MappingProxyType
from typing import Annotated, Any

import typer
from typer.core import TyperGroup
from typer.exceptions import Abort, Exit, TyperException
from typer.main import get_group

import headrace
from headrace.contract.errors import HeadraceError

_INTERRUPTED = 130
_BROKEN_PIPE = 141

VERBS: Mapping[str, str] = MappingProxyType(
    {
        "up": "headrace.cli.up:up",
        "gateway": "headrace.cli.servers:gateway",
        "worker": "headrace.cli.servers:worker",
        "submit": "headrace.cli.one_job:submit",
        "events": "headrace.cli.one_job:events",
        "cancel": "headrace.cli.one_job:cancel",
        "replay": "headrace.cli.replay:replay",
        "jobs": "headrace.cli.job_list:app",
        "dlq": "headrace.cli.dlq:app",
        "chat": "headrace.cli.chat:chat",
        "config": "headrace.cli.config:app",
        "doctor": "headrace.cli.doctor:doctor",
        "models": "headrace.cli.models:app",
    }
)
"""Where each verb is: a function, or a Typer with verbs of its own. Imported when wanted, so that the others cost
nothing."""
_SETTINGS: Mapping[str, dict[str, Any]] = MappingProxyType({"up": {"allow_interspersed_args": False}})


class Verbs(TyperGroup):
    """The verbs of VERBS, each imported when it is asked for."""

    def list_commands(self, ctx: typer.Context) -> list[str]:  # type: ignore[override]
        return list(VERBS)

    def get_command(self, ctx: typer.Context, cmd_name: str) -> Any:  # type: ignore[override]
        # For a misspelt one all are fetched, since Typer suggests from those it has.
        for name in [cmd_name] if cmd_name in VERBS else VERBS:
            if name not in self.commands:
                self.add_command(_load(name), name)
        return self.commands.get(cmd_name)


def _load(name: str) -> Any:
    module, _, attribute = VERBS[name].partition(":")
    found = getattr(importlib.import_module(module), attribute)
    parent = typer.Typer(rich_markup_mode=None)
    if isinstance(found, typer.Typer):
        parent.add_typer(found, name=name)
    else:
        parent.command(name, context_settings=_SETTINGS.get(name))(found)
    return get_group(parent).commands[name]


app = typer.Typer(
    cls=Verbs,
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
    help="Work put on a queue comes back as tokens.",
)


def _version(wanted: bool) -> None:
    if wanted:
        print(f"headrace {headrace.__version__}")
        raise Exit


@app.callback()
def root(
    verbose: Annotated[bool, typer.Option("--verbose", "-v", help="Show tracebacks of errors.")] = False,
    version: Annotated[bool, typer.Option("--version", callback=_version, is_eager=True, help="And exit.")] = False,
) -> None:
    pass


def main() -> None:
    sys.exit(run(sys.argv[1:]))


def run(arguments: list[str]) -> int:
    """Exit codes: what a verb says, else 0 done, 1 an error (one line on standard error), 2 wrong usage, 130
    interrupted, 141 nobody reads any more."""
    try:
        code = app(arguments, prog_name="headrace", standalone_mode=False)
        sys.stdout.flush()
    except HeadraceError as error:
        return _fail(arguments, error.explain())
    except TyperException as error:  # wrong usage
        message = error.format_message()
        print(message if "\n" in message else f"headrace: {message} See headrace --help.", file=sys.stderr)
        return error.exit_code
    except Exit as exit_:
        return exit_.exit_code
    except (KeyboardInterrupt, Abort):
        return _INTERRUPTED
    except BrokenPipeError:
        # Whoever read us has enough; Python would complain once more while flushing at exit.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return _BROKEN_PIPE
    except Exception as error:  # noqa: BLE001 - the last resort: ends as one line, the work is in the store
        return _fail(arguments, f"Unexpected {type(error).__name__}: {error} Run it again with -v for the details.")
    return code if isinstance(code, int) else 0


def _fail(arguments: list[str], message: str) -> int:
    ours = arguments[: arguments.index("--")] if "--" in arguments else arguments
    if "-v" in ours or "--verbose" in ours:
        traceback.print_exc()
    print(f"headrace: {' '.join(message.split())}", file=sys.stderr)
    return 1


if __name__ == "__main__":
    main()
