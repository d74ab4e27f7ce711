"""`python -m workers register`: a model's card from its file alone. Knows what the file says, loads no weights.

A fleet that never had a worker can then accept jobs, which is what starts one.
"""

import argparse
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

from headrace.contract.errors import SetupError, StoreUnavailable
from headrace.contract.job import lane_of
from headrace.contract.model_card import ModelCard
from headrace.settings import EngineSettings, Settings, load
from headrace.store.cards import write_card
from headrace.store.connection import check_server, connect
from workers.inference import fake_engine
from workers.inference.card import make_card
from workers.inference.messages import CannotStart, Ready
from workers.inference.served_model import CANNOT_START, find_model


def main(arguments: list[str]) -> int:
    """0 once card and tokenizer are in the store, else 3 and one line that says why."""
    try:
        settings = _settings(arguments)
        card = register(settings)
    except (SetupError, StoreUnavailable) as error:
        sys.stderr.write(f"headrace register: {error.explain()}\n")
        return CANNOT_START
    lane = lane_of(card.id, settings.worker.release)
    sys.stdout.write(f"{lane} is registered: {card.context_length} tokens of context, {card.max_kv_tokens} of cache\n")
    return 0


def register(settings: Settings) -> ModelCard:
    """Write the card that a worker with these settings would write, but for its digest; the card as it now is.

    Raises SetupError for a file that no worker could load either, StoreUnavailable.
    """
    model = find_model(settings)
    if not settings.redis.url:
        raise SetupError("No Redis is given.", next_step="Give --redis-url, or set HEADRACE_REDIS__URL.")
    ready = read_model(model.source, settings.engine)
    client = connect(
        settings.redis.url,
        connect_timeout_s=settings.redis.connect_timeout_s,
        socket_timeout_s=settings.redis.socket_timeout_s,
    )
    with client:
        check_server(client)
        card = replace(make_card(model.id, ready), digest="")  # of a running engine only
        return write_card(client, card, ready.facts.tokenizer_json, release=settings.worker.release)


def read_model(source: str, engine: EngineSettings) -> Ready:
    """What an engine process would say once it is ready. Raises SetupError for a file that it could not load."""
    if source.startswith(fake_engine.SCHEME):
        return fake_engine.FakeEngine(fake_engine.parse_knobs(source)).ready()
    from workers.inference.translate import describe_model  # the engine's own imports are only worth it for a file

    try:
        return describe_model(source, engine)
    except CannotStart as error:
        raise SetupError(str(error)) from error


def _settings(arguments: list[str]) -> Settings:
    parser = argparse.ArgumentParser(
        prog="python -m workers register", description="Announce a model without a worker."
    )
    parser.add_argument("--model", help="a name from `headrace models list`, or file:<path>")
    parser.add_argument("--release", help="the release whose lane it is for (default: stable)")
    parser.add_argument("--redis-url", help="the fleet's Redis")
    parser.add_argument("--config", type=Path, help="a YAML file of settings")
    given = parser.parse_args(arguments)
    flags: dict[str, dict[str, Any]] = {
        "worker": {"model": given.model, "release": given.release},
        "redis": {"url": given.redis_url},
    }
    return load(flags, given.config)
