"""`headrace up`: the whole stack in the foreground, or around one command. Knows signals and what to print."""

import os
import signal
import socket
import subprocess
from dataclasses import asdict
from pathlib import Path
from types import FrameType
from typing import Annotated, Any

import typer

from headrace import models, settings
from headrace.cli import output
from headrace.cli.config import Config
from headrace.contract.errors import SetupError
from headrace.models import pull
from headrace.supervisor.fleet import Fleet, need_servers
from headrace.supervisor.plan import Address, Plan, Served, worker_range
from headrace.supervisor.redis_server import free_port

_LOOK_S = 0.05
_COMMAND_GRACE_S = 5.0
_INTERRUPTED = 130


def up(
    command: Annotated[
        list[str] | None,
        typer.Argument(help="After --: run this once the fleet is ready, then stop and exit with its code."),
    ] = None,
    workers: Annotated[
        str, typer.Option(help="How many workers for each model: a number, or a range like 0..4 to go by the work.")
    ] = "1",
    port: Annotated[str | None, typer.Option(help="Port of the gateway; 0 or auto takes a free one.")] = None,
    host: Annotated[str | None, typer.Option(help="Address of the gateway.")] = None,
    data_dir: Annotated[Path | None, typer.Option(help="Queue, results and logs.")] = None,
    redis_url: Annotated[str | None, typer.Option(help="A Redis of your own instead of the embedded one.")] = None,
    model: Annotated[
        list[str] | None,
        typer.Option(help="A name of `headrace models list`, or file:, hf:, s3: or <id>=…; once for each model."),
    ] = None,
    config: Config = None,
    json: Annotated[bool, typer.Option("--json", help="Print the addresses as one JSON document.")] = False,
    verbose: Annotated[bool, typer.Option("--verbose", "-v", help="Logs and tracebacks on standard error.")] = False,
) -> int:
    """Run Redis, gateway and workers until Ctrl-C. Restarts what dies, leaves nothing behind.

    With --workers 0..4 each model has between 0 and 4 workers, as many as its queue needs.

    The command after -- finds the fleet in HEADRACE_URL and HEADRACE_REDIS__URL; {url}, {redis_url} and {model}
    in its arguments are filled in.
    """
    need_servers()  # before a model is fetched that nothing here could run
    flags = {
        "paths": {"data_dir": data_dir},
        "redis": {"url": redis_url},
        "gateway": {"host": host, "port": _port(port)},
    }
    least, most = worker_range(workers)
    loaded = _with_port(settings.load(flags, config))
    served = _served(model or [loaded.worker.model], loaded)
    with _Stop() as stop:
        fleet = Fleet(Plan(loaded, served, least, most, verbose), output.say)
        try:
            fleet.start()
            if not fleet.wait_ready(lambda: stop.asked):
                return _INTERRUPTED
            if command:
                output.say(
                    f"{', '.join(fleet.address.models)} at {fleet.address.url}, Redis at {fleet.address.redis_url}"
                )
                return _run(command, fleet, stop)
            output.json_data(asdict(fleet.address)) if json else output.data(_welcome(fleet.address))
            while not stop.asked:
                fleet.look()
                fleet.pause(_LOOK_S)
            output.say("Draining; once more Ctrl-C to stop at once.")
            return 0
        finally:
            fleet.stop(lambda: stop.in_a_hurry)


class _Stop:
    """The first signal asks to stop, the next one to hurry."""

    def __init__(self) -> None:
        self._signals = 0
        self._before: dict[int, Any] = {}

    @property
    def asked(self) -> bool:
        return self._signals > 0

    @property
    def in_a_hurry(self) -> bool:
        return self._signals > 1

    def __enter__(self) -> "_Stop":
        for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
            self._before[number] = signal.signal(number, self._count)
        return self

    def __exit__(self, *_: object) -> None:
        for number, before in self._before.items():
            signal.signal(number, before)

    def _count(self, number: int, frame: FrameType | None) -> None:
        self._signals += 1


def _run(command: list[str], fleet: Fleet, stop: _Stop) -> int:
    """Run a command beside the fleet; its exit code. It shares the terminal, so Ctrl-C reaches it by itself."""
    address = fleet.address
    filled = [
        word.replace("{url}", address.url).replace("{redis_url}", address.redis_url).replace("{model}", address.model)
        for word in command
    ]
    environment = {**os.environ, "HEADRACE_URL": address.url, "HEADRACE_REDIS__URL": address.redis_url}
    try:
        process = subprocess.Popen(filled, env=environment)
    except OSError as error:
        raise SetupError(f"{filled[0]} cannot be run: {error.strerror}.") from error
    fleet.adopt(process.pid)
    try:
        while process.poll() is None and not stop.asked:
            fleet.look()
            fleet.pause(_LOOK_S)
        if process.poll() is None:
            process.terminate()
            process.wait(_COMMAND_GRACE_S)
    except subprocess.TimeoutExpired:
        process.kill()
    finally:
        code = process.wait()
        fleet.dismiss(process.pid)
    return _INTERRUPTED if stop.asked else code if code >= 0 else 128 - code


def _port(text: str | None) -> int | None:
    if text is None:
        return None
    if text == "auto":
        return 0
    if text.isdecimal():
        return int(text)
    raise SetupError(f"{text!r} is not a port.", next_step="Give a number, or auto for a free one.")


def _with_port(loaded: settings.Settings) -> settings.Settings:
    """The settings with a port that can be had. Raises SetupError while somebody else listens on it."""
    host, port = loaded.gateway.host, loaded.gateway.port
    if port == 0:
        return _changed(loaded, "gateway", port=free_port(host))
    with socket.socket(socket.AF_INET6 if ":" in host else socket.AF_INET) as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)  # as the gateway does
        try:
            probe.bind((host, port))
        except OSError as error:
            raise SetupError(
                f"Port {port} on {host} cannot be used: {error.strerror}.",
                next_step="Stop what listens there, or give --port auto.",
            ) from error
    return loaded


def _served(names: list[str], loaded: settings.Settings) -> tuple[Served, ...]:
    """The models, each on this machine. Raises SetupError when two have one id."""
    served = tuple(_found(name, loaded) for name in names)
    ids = [model.id for model in served]
    for twice in (model_id for model_id in ids if ids.count(model_id) > 1):
        raise SetupError(
            f"Two models are called {twice}.", next_step=f"Name one yourself: --model another-{twice}=file:<path>"
        )
    return served


def _found(name: str, loaded: settings.Settings) -> Served:
    if without_model := models.fake(name):
        return Served(without_model[0], name)
    with output.pull_progress(name) as progress:
        found = pull.pull(name, loaded.paths.models_dir, progress=progress, endpoint_url=loaded.blobs.endpoint_url)
    # A relative path would mean another file to a process in another folder.
    return Served(found.id, f"{found.id}=file:{found.path}" if models.is_file(name) else name)


def _changed(loaded: settings.Settings, section: str, **fields: Any) -> settings.Settings:
    part = getattr(loaded, section).model_copy(update=fields)
    return loaded.model_copy(update={section: part})


def _welcome(address: Address) -> str:
    return f"""\
Headrace serves {", ".join(address.models)}

  export HEADRACE_URL={address.url} HEADRACE_REDIS__URL={address.redis_url}

curl {address.url}/v1/chat/completions -H 'Content-Type: application/json' \\
  -d '{{"model": "{address.model}", "max_tokens": 60, "messages": [{{"role": "user", "content": "What is a mill?"}}]}}'

from openai import OpenAI

client = OpenAI(base_url="{address.url}/v1", api_key="none")
chat = client.chat.completions.create(
    model="{address.model}", max_tokens=60, messages=[{{"role": "user", "content": "What is a mill?"}}]
)
print(chat.choices[0].message.content)

Ctrl-C drains and stops."""
