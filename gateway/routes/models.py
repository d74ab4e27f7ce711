"""`/v1/models`: what can be asked for. Knows cards; a model whose workers are all gone is still there."""

from fastapi import APIRouter, Response

from gateway.errors import json_response
from gateway.services import Services
from headrace.openai.projection import model_list, model_object


def router(services: Services) -> APIRouter:
    routes = APIRouter(tags=["models"])

    @routes.get("/v1/models")
    async def list_models() -> Response:
        """Every model once, whatever the number of its releases and workers."""
        return json_response(model_list([release.card for release in await services.cards.list()]))

    # Ids may hold slashes, which clients send as they are or as %2F.
    @routes.get("/v1/models/{model_id:path}")
    async def get_model(model_id: str) -> Response:
        return json_response(model_object((await services.cards.get(model_id)).card))

    return routes
