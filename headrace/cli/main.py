"""Entry of the `headrace` command: gathers the verbs, and turns every error into one line and an exit code."""

import os
import sys
import traceback
from typing import Annotated

import typer
from typer.exceptions import Abort, Exit, TyperException

import headrace
from headrace.cli import jobs, models, servers, up
from headrace.contract.errors import HeadraceError

_INTERRUPTED = 130
_BROKEN_PIPE = 141

app = typer.Typer(
    add_completion=False,
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
    help="Work put on a queue comes back as tokens.",
)
app.command("up", context_settings={"allow_interspersed_args": False})(up.up)
app.command("gateway")(servers.gateway)
app.command("worker")(servers.worker)
app.command("submit")(jobs.submit)
app.command("events")(jobs.events)
app.command("cancel")(jobs.cancel)
app.add_typer(models.app, name="models")


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
    """Exit codes: 0 done, 1 an error (one line on standard error), 2 wrong usage, 130 interrupted."""
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
