"""What a model says of itself, whatever its format: sizes, ids, tokenizer, template, revision."""

from dataclasses import dataclass
from typing import Final

from engine.models.shape import ModelShape

# A chat model may end its turn with any of these, whichever one its files declare as its end.
END_OF_TURN: Final = (
    "<|im_end|>",
    "<|endoftext|>",
    "<|eot_id|>",
    "<|end_of_text|>",
    "<|eom_id|>",
    "</s>",
    "<|end|>",
    "<end_of_turn>",
)


@dataclass(frozen=True, slots=True)
class ModelDescription:
    """One model. `revision` is a SHA-256 over weights, tokenizer and template together."""

    architecture: str
    name: str
    revision: str
    shape: ModelShape
    eos_ids: tuple[int, ...]
    bos_id: int | None
    add_bos: bool
    tokenizer_json: str
    chat_template: str | None
    parameter_count: int
    quantization: str  # the format of most of its values
    licence: str
    file_bytes: int

    @property
    def context_length(self) -> int:
        return self.shape.context_length

    @property
    def vocab_size(self) -> int:
        return self.shape.vocab_size

    @property
    def kv_bytes_per_token(self) -> int:
        """Bytes of KV cache for one token under the exact numerics, at most: the CPU backend's."""
        return self.shape.kv_bytes_per_token("exact")
