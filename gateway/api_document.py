"""What `/openapi.json` says of bodies and query strings. Knows schemas, not routes.

Routes read both themselves, so that every refusal has our shape; FastAPI cannot know them and is told here.
"""

from collections.abc import Mapping
from typing import Any

from fastapi import FastAPI
from fastapi.openapi.utils import get_openapi
from pydantic.json_schema import models_json_schema

from headrace.openai.dead_letters import PurgeBody, RedriveBody
from headrace.openai.schema import Body, ChatBody, CompletionBody, JobBody, ReplayBody

_BODIES: tuple[type[Body], ...] = (ChatBody, CompletionBody, JobBody, ReplayBody, RedriveBody, PurgeBody)
_REF = "#/components/schemas/{model}"


def json_body(model: type[Body], *, required: bool = True) -> dict[str, Any]:
    """A route's `openapi_extra`: its body is this model, as JSON."""
    schema = {"$ref": _REF.format(model=model.__name__)}
    return {"requestBody": {"required": required, "content": {"application/json": {"schema": schema}}}}


def query_parameters(described: Mapping[str, str]) -> list[dict[str, Any]]:
    """A route's query parameters by name; all of them may be left out."""
    return [
        {"name": name, "in": "query", "required": False, "description": text, "schema": {"type": "string"}}
        for name, text in described.items()
    ]


def describe_bodies(app: FastAPI) -> None:
    """Give the document the models that `json_body` refers to."""

    def document() -> dict[str, Any]:
        if app.openapi_schema is None:
            whole = get_openapi(title=app.title, version=app.version, routes=app.routes)
            _, models = models_json_schema([(model, "validation") for model in _BODIES], ref_template=_REF)
            whole.setdefault("components", {}).setdefault("schemas", {}).update(models["$defs"])
            app.openapi_schema = whole
        return app.openapi_schema

    app.openapi = document  # type: ignore[method-assign]
