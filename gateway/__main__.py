"""`python -m gateway`: reads the settings once, builds the parts and serves until asked to stop. Knows no route."""

import argparse
import asyncio
import gc
import sys
from pathlib import Path

import structlog
import uvloop

from gateway.app import build_app
from gateway.server import Server, bind
from gateway.services import open_services
from headrace.contract.errors import HeadraceError
from headrace.settings import Settings, load
from headrace.telemetry import logs

_log = structlog.get_logger("gateway")


def main() -> int:
    """Exit status: 0 when asked to stop, 1 when something on this machine must be put right first."""
    flags = _flags()
    try:
        settings = load({"gateway": {"host": flags.host, "port": flags.port}}, flags.config)
        logs.configure(settings.log, role="gateway")
        with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
            runner.run(_serve(settings))
    except HeadraceError as error:
        print(f"gateway: {error.explain()}", file=sys.stderr)  # noqa: T201 - the one line a person is to read
        return 1
    except KeyboardInterrupt:
        pass
    return 0


async def _serve(settings: Settings) -> None:
    listener = bind(settings.gateway.host, settings.gateway.port)
    closing = asyncio.Event()
    async with open_services(settings, closing) as services:
        app = build_app(services)
        gc.freeze()  # all this stays as long as we do: a collection that looked at it would only hold up every stream
        host, port = listener.getsockname()[:2]
        _log.info("gateway.listening", host=host, port=port)
        await Server(app, closing).serve([listener])
    _log.info("gateway.stopped")


def _flags() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m gateway", description="Serve Headrace's HTTP API.")
    parser.add_argument("--host", help="address to listen on (default 127.0.0.1)")
    parser.add_argument("--port", type=int, help="port to listen on (default 8080; 0 takes a free one)")
    parser.add_argument("--config", type=Path, help="a YAML file of settings")
    return parser.parse_args()


if __name__ == "__main__":
    sys.exit(main())
