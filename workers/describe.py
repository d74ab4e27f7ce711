"""`python -m workers describe`: what a model's file says of itself, as JSON. Loads no weights, talks to nobody."""

import argparse
import json
import sys

from engine.errors import ModelFileError
from engine.loaders import describe
from headrace import models
from headrace.contract.errors import SetupError
from headrace.settings import load
from workers.inference.card import capabilities
from workers.inference.served_model import CANNOT_START
from workers.inference.translate import facts_of


def main(arguments: list[str]) -> int:
    """0 and one JSON document, else 3 and one line that says why."""
    parser = argparse.ArgumentParser(prog="python -m workers describe", description="What a model's file says.")
    parser.add_argument("model", help="a name as of `headrace models pull`; it is not fetched")
    name = parser.parse_args(arguments).model
    try:
        found = models.resolve(name, load().paths.models_dir)
        said = describe(found.path)
    except (SetupError, ModelFileError) as error:
        reason = error.explain() if isinstance(error, SetupError) else str(error)
        sys.stderr.write(f"headrace describe: {reason}\n")
        return CANNOT_START
    shown = {
        "id": found.id,
        "path": str(found.path),
        "name": said.name,
        "architecture": said.architecture,
        "parameters": said.parameter_count,
        "quantization": said.quantization,
        "licence": said.licence or None,
        "context_length": said.context_length,
        "vocab_size": said.vocab_size,
        "capabilities": list(capabilities(facts_of(said, said.context_length))),
        "size": said.file_bytes,
        "kv_bytes_per_token": said.kv_bytes_per_token,
        "sha256": said.revision,
    }
    sys.stdout.write(json.dumps(shown, ensure_ascii=False) + "\n")
    return 0
