"""`/v1/completions`: raw prompts whose client waits, each prompt a job. Knows the route, not how it is waited for."""

from fastapi import APIRouter, Request, Response

from gateway.api_document import json_body
from gateway.services import Services
from gateway.submitting import read_body, submit_all
from gateway.waiting import Waiting
from headrace.openai.schema import CompletionBody
from headrace.openai.translate import completion_intents


def router(services: Services) -> APIRouter:
    routes = APIRouter(prefix="/v1", tags=["openai"])

    @routes.post("/completions", openapi_extra=json_body(CompletionBody))
    async def completion(request: Request) -> Response:
        """Completions of one or several raw prompts, as text or as token ids."""
        parsed, seen_as = await read_body(request, services, CompletionBody)
        accepted = await submit_all(request, services, completion_intents(parsed), seen_as)
        return await Waiting(services, request, accepted, parsed.include_usage).answer(bool(parsed.stream))

    return routes
