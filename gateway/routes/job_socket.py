"""`/v1/jobs/<id>/ws`: a job's events through a WebSocket. Knows the address, not what is said there."""

from fastapi import APIRouter, Response, WebSocket

from gateway.errors import error_response
from gateway.services import Services
from gateway.socket_session import SocketSession
from headrace.contract.errors import InvalidRequest


class UpgradeRequired(InvalidRequest):
    status = 426


def router(services: Services) -> APIRouter:
    routes = APIRouter(prefix="/v1/jobs", tags=["jobs"])

    @routes.websocket("/{job_id}/ws")
    async def socket(websocket: WebSocket, job_id: str) -> None:
        await SocketSession(services, websocket).run(job_id)

    @routes.get("/{job_id}/ws", status_code=426)
    async def not_upgraded(job_id: str) -> Response:
        """A WebSocket of the job's events; `?cursor=` goes on where an earlier one was cut."""
        error = UpgradeRequired(
            "This address speaks WebSocket.", next_step=f"Over plain HTTP read /v1/jobs/{job_id[:80]}/events."
        )
        return error_response(error, {"upgrade": "websocket"})

    return routes
