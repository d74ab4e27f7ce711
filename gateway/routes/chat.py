"""`/v1/chat/completions`: a chat whose client waits for the answer. Knows the route, not how it is waited for."""

from fastapi import APIRouter, Request, Response

from gateway.api_document import json_body
from gateway.services import Services
from gateway.submitting import read_body, submit_all
from gateway.waiting import Waiting
from headrace.openai.schema import ChatBody
from headrace.openai.translate import chat_intent


def router(services: Services) -> APIRouter:
    routes = APIRouter(prefix="/v1", tags=["openai"])

    @routes.post("/chat/completions", openapi_extra=json_body(ChatBody))
    async def chat(request: Request) -> Response:
        """A chat completion."""
        parsed, seen_as = await read_body(request, services, ChatBody)
        accepted = await submit_all(request, services, [chat_intent(parsed)], seen_as)
        return await Waiting(services, request, accepted, parsed.include_usage).answer(bool(parsed.stream))

    return routes
