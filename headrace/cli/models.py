"""`headrace models`: pull, list, path, verify. Knows arguments; files are `headrace.models`'s business."""

from pathlib import Path
from typing import Annotated

import typer

from headrace import models, pull, settings
from headrace.cli import output

app = typer.Typer(no_args_is_help=True, help="Models on this machine.")

Name = Annotated[str, typer.Argument(help="A name of `headrace models list`, or file:<path>.")]
AsJson = Annotated[bool, typer.Option("--json", help="One JSON document on standard output.")]


@app.command("pull")
def pull_(
    name: Name = models.DEFAULT_MODEL,
    force: Annotated[bool, typer.Option(help="Fetch it again even if it is here.")] = False,
    json: AsJson = False,
) -> None:
    """Fetch a model unless it is here, and print its path."""
    with output.pull_progress(name) as progress:
        model = pull.pull(name, _models_dir(), force=force, progress=progress)
    _show(model, json)


@app.command("list")
def list_(json: AsJson = False) -> None:
    """What can be pulled, and what is here."""
    rows = models.listing(_models_dir())
    if json:
        output.json_data(
            [
                {"id": row.entry.id, "pulled": row.pulled, "path": str(row.path), "size": row.entry.size}
                | {"licence": row.entry.licence, "sha256": row.entry.sha256}
                for row in rows
            ]
        )
        return
    for row in rows:
        state = str(row.path) if row.pulled else f"not here; headrace models pull {row.entry.id}"
        output.data(f"{row.entry.id}  {row.entry.size / 1e6:.0f} MB  {row.entry.licence}  {state}")


@app.command()
def path(name: Name = models.DEFAULT_MODEL, json: AsJson = False) -> None:
    """Where a model's file lies."""
    _show(models.resolve(name, _models_dir()), json)


@app.command()
def verify(name: Name = models.DEFAULT_MODEL, json: AsJson = False) -> None:
    """Read a whole file and compare its checksum with the pinned one."""
    _show(models.verify(name, _models_dir()), json)


def _models_dir() -> Path:
    return settings.load().paths.models_dir


def _show(model: models.ModelFile, json: bool) -> None:
    if json:
        output.json_data({"id": model.id, "path": str(model.path)})
    else:
        output.data(str(model.path))
