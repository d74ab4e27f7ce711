"""Puts the routes together. Knows which there are, not what they do."""

from fastapi import FastAPI

import headrace
from gateway.api_document import describe_bodies
from gateway.envelope import Envelope
from gateway.errors import add_error_handlers
from gateway.routes import chat, completions, dead_letters, health, job_socket, jobs, models, replay
from gateway.services import Services


def build_app(services: Services) -> FastAPI:
    """The ASGI app over these services, which whoever built them closes."""
    app = FastAPI(title="Headrace", version=headrace.__version__, redirect_slashes=False)
    for module in (chat, completions, jobs, replay, job_socket, dead_letters, models, health):
        app.include_router(module.router(services))
    describe_bodies(app)
    add_error_handlers(app)
    app.add_middleware(Envelope, metrics=services.metrics, traces=services.traces)
    return app
