"""What a worker tells of its model: all that the file says, and nothing that cannot be done."""

from dataclasses import replace
from pathlib import Path

from headrace.contract.model_card import ModelCard
from headrace.openai.projection import model_object
from headrace.settings import EngineSettings
from tests.tiny_model import write_tiny_model
from workers.inference.card import make_card
from workers.inference.translate import describe_model


def test_a_card_says_what_the_file_says(tmp_path: Path) -> None:
    path = write_tiny_model(tmp_path / "tiny.gguf")
    card = make_card("tiny", describe_model(str(path), EngineSettings(kv_budget_mb=8)))
    assert (card.name, card.architecture, card.quantization, card.licence) == ("tiny", "llama", "F32", "")
    assert card.parameters is not None
    assert 50_000 < card.parameters < 500_000
    assert card.capabilities == ("chat", "completion", "logprobs")
    shown = model_object(card)
    assert (shown["quantization"], shown["licence"], shown["parameters"]) == ("F32", None, card.parameters)


def test_without_a_template_there_is_no_chat(tmp_path: Path) -> None:
    ready = describe_model(str(write_tiny_model(tmp_path / "tiny.gguf")), EngineSettings(kv_budget_mb=8))
    card = make_card("tiny", replace(ready, facts=replace(ready.facts, chat_template=None)))
    assert card.capabilities == ("completion", "logprobs")


def test_a_card_of_an_earlier_version_is_read() -> None:
    old = {"id": "m", "revision": "r", "context_length": 8, "max_kv_tokens": 8, "vocab_size": 9, "eos_ids": [1]}
    card = ModelCard.from_json({**old, "bos_id": None, "tokenizer_ref": "", "chat_template": None, "colour": 1})
    assert (card.architecture, card.parameters, card.eos_ids) == ("", None, (1,))
