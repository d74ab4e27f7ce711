"""What the verbs that talk to a gateway have in common: their options, their patience, which model is meant."""

import asyncio
from math import isfinite
from typing import Annotated

import typer

from headrace.client import AsyncClient, Client, Patience
from headrace.contract.errors import HeadraceError, ModelNotFound
from headrace.models import CATALOGUE

_COMPLETION_S = 1.0  # somebody has pressed Tab

PATIENCE = Patience(silence_s=10.0, nobody_s=0.7)  # somebody sits in front of it


def known_models(incomplete: str) -> list[str]:
    """For shell completion: what the gateway serves, or else what can be pulled."""

    async def served() -> list[str]:
        async with asyncio.timeout(_COMPLETION_S), AsyncClient(patience=Patience(silence_s=0.0)) as client:
            return await client.models()

    try:
        names = asyncio.run(served())
    except (HeadraceError, TimeoutError):
        names = list(CATALOGUE)
    return [name for name in names if name.startswith(incomplete)]


Url = Annotated[
    str | None, typer.Option("--url", help="The gateway, or several with commas between (or HEADRACE_URL).")
]
ApiKey = Annotated[str | None, typer.Option("--api-key", help="Or HEADRACE_API_KEY.")]
AsJson = Annotated[bool, typer.Option("--json", help="JSON on standard output, one document a line.")]
JobId = Annotated[str, typer.Argument(help="job_…")]
Model = Annotated[
    str | None,
    typer.Option(help="Which model; may be left out when there is only one.", autocompletion=known_models),
]


def finite(seconds: float | None) -> float | None:
    """For an option: raises BadParameter for nan and inf, which pass its limits."""
    if seconds is not None and not isfinite(seconds):
        raise typer.BadParameter(f"{seconds} is no number of seconds.")
    return seconds


def connect(url: str | None, api_key: str | None) -> Client:
    return Client(url, api_key, patience=PATIENCE)


def only_model(client: Client) -> str:
    """The one model there is. Raises ModelNotFound when one must be named."""
    models = client.models()
    if len(models) != 1:
        known = ", ".join(models) or "none yet: is a worker running?"
        raise ModelNotFound("Which model is to answer?", next_step=f"Give --model; known are: {known}")
    return models[0]
