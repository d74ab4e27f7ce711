"""`headrace models`: pull, list, path, verify, show. Knows arguments; files are `headrace.models`'s business."""

import json as json_
import subprocess
import sys
from dataclasses import asdict
from typing import Annotated, Any

import typer

from headrace import models, settings
from headrace.cli import output
from headrace.contract.errors import SetupError
from headrace.models import pull
from headrace.supervisor.fleet import need_server

app = typer.Typer(no_args_is_help=True, help="Models on this machine.")

_DESCRIBE_S = 120.0

Name = Annotated[
    str,
    typer.Argument(help="A name of the list, file:<path>, hf:<org>/<repo>[@rev][:quant] or s3://<bucket>/<key>."),
]
AsJson = Annotated[bool, typer.Option("--json", help="One JSON document on standard output.")]


@app.command("pull")
def pull_(
    name: Name = models.DEFAULT_MODEL,
    force: Annotated[bool, typer.Option(help="Fetch it again, and what a branch or key means now.")] = False,
    json: AsJson = False,
) -> None:
    """Fetch a model unless it is here, and print its path."""
    loaded = settings.load()
    with output.pull_progress(name) as progress:
        model = pull.pull(
            name,
            loaded.paths.models_dir,
            force=force,
            progress=progress,
            endpoint_url=loaded.blobs.endpoint_url,
        )
    _show(model, json)


@app.command("list")
def list_(json: AsJson = False) -> None:
    """What can be pulled by its name alone, and all that is here."""
    rows = models.listing(settings.load().paths.models_dir)
    if json:
        output.json_data([asdict(row) | {"path": str(row.path)} for row in rows])
        return
    for row in rows:
        state = str(row.path) if row.pulled else f"not here; headrace models pull {row.name}"
        output.data(f"{row.name}  {row.size / 1e6:.0f} MB  {row.licence or 'licence unknown'}  {state}")


@app.command()
def path(name: Name = models.DEFAULT_MODEL, json: AsJson = False) -> None:
    """Where a model's file lies."""
    _show(models.resolve(name, settings.load().paths.models_dir), json)


@app.command()
def verify(name: Name = models.DEFAULT_MODEL, json: AsJson = False) -> None:
    """Read a whole file and compare its checksum with the one it was pulled by."""
    _show(models.verify(name, settings.load().paths.models_dir), json)


@app.command()
def show(name: Name = models.DEFAULT_MODEL, json: AsJson = False) -> None:
    """What a model's file says of itself, without loading it: size, context, what it can do."""
    said = _described(name)
    if json:
        output.json_data(said)
        return
    for field, value in said.items():
        shown = ", ".join(value) if isinstance(value, list) else "" if value is None else str(value)
        output.data(f"{field.replace('_', ' '):20}{shown}".rstrip())


def _described(name: str) -> dict[str, Any]:
    """Files are the engine's business, which this side does not import: a worker's interpreter looks."""
    models.resolve(name, settings.load().paths.models_dir)
    need_server("workers")
    done = subprocess.run(
        [sys.executable, "-m", "workers", "describe", name], capture_output=True, text=True, timeout=_DESCRIBE_S
    )
    if done.returncode != 0:
        reason = done.stderr.strip().splitlines() or ["it said nothing"]
        raise SetupError(reason[-1].removeprefix("headrace describe: "))
    described: dict[str, Any] = json_.loads(done.stdout)
    return described


def _show(model: models.ModelFile, json: bool) -> None:
    if json:
        output.json_data({"id": model.id, "path": str(model.path)})
    else:
        output.data(str(model.path))
