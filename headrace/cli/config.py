"""`headrace config`: the settings as every process here would see them. Knows printing; `settings` reads them."""

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any

import typer

from headrace import settings
from headrace.cli import output
from headrace.cli.options import AsJson
from headrace.contract.errors import SetupError

app = typer.Typer(no_args_is_help=True, help="The settings in force, and where they come from.")

Config = Annotated[Path | None, typer.Option("--config", help="A YAML file of settings.")]

_PASSWORD = re.compile(r"(?<=://)([^/@\s:]*):[^/@\s]+(?=@)")
_SECRET = re.compile(r"([?&][^=&]*(?:password|secret|token|key)[^=&]*=)[^&\s]+", re.IGNORECASE)


@app.command()
def show(config: Config = None, json: AsJson = False) -> None:
    """Every setting, its value and where that came from. Passwords in URLs are not shown."""
    loaded, origins = settings.load_with_origins(config=config)
    tree = loaded.model_dump(mode="json")
    if json:
        output.json_data(
            {
                section: {
                    name: {"value": masked(value), "source": _origin(origins, section, name)}
                    for name, value in fields.items()
                }
                for section, fields in tree.items()
            }
        )
        return
    rows = [
        (f"{section}.{name}", _text(masked(value)), _origin(origins, section, name))
        for section, fields in tree.items()
        for name, value in fields.items()
    ]
    output.table([("SETTING", "VALUE", "FROM"), *rows])


@app.command()
def check(config: Config = None, json: AsJson = False) -> int:
    """Whether the settings are valid; exit code 1 and the first thing that is wrong if not."""
    try:
        settings.load(config=config)
    except SetupError as error:
        if not json:
            raise
        output.json_data({"valid": False, "error": error.explain(), "setting": error.param})
        return 1
    output.json_data({"valid": True}) if json else output.data("The settings are valid.")
    return 0


def masked(value: Any) -> Any:
    """A value as it may be shown: without what a URL keeps secret."""
    if not isinstance(value, str):
        return value
    return _SECRET.sub(r"\1***", _PASSWORD.sub(r"\1:***", value))


def _origin(origins: Mapping[str, str], section: str, name: str) -> str:
    return origins.get(f"{section}.{name}", "default")


def _text(value: Any) -> str:
    return "" if value is None else str(value)
