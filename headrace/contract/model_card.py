"""What submit must know of a model: written to the store by a starting worker. Knows no file format."""

from dataclasses import asdict, dataclass
from typing import Any


@dataclass(frozen=True, slots=True)
class ModelCard:
    """One release of one model. `max_kv_tokens` is that of its largest worker; `tokenizer_ref` is a sha256.

    `capabilities` are what its workers can do today: chat (it has a template), completion, logprobs.
    `tokens_per_second` is what one of them last measured of all its requests together, None until one has worked for a
    while. From `name` on it is what the file says of itself, empty or None where it says nothing.
    """

    id: str
    revision: str
    context_length: int
    max_kv_tokens: int
    vocab_size: int
    eos_ids: tuple[int, ...]
    bos_id: int | None
    tokenizer_ref: str
    chat_template: str | None
    aliases: tuple[str, ...] = ()
    capabilities: tuple[str, ...] = ("chat", "completion")
    tokens_per_second: float | None = None
    digest: str = ""
    created_at: int = 0
    name: str = ""
    architecture: str = ""
    parameters: int | None = None
    quantization: str = ""
    licence: str = ""

    @property
    def max_tokens_in_all(self) -> int:
        """Prompt and output together may not be longer than this."""
        return min(self.context_length, self.max_kv_tokens)

    def to_json(self) -> dict[str, Any]:
        return asdict(self)

    @classmethod
    def from_json(cls, data: dict[str, Any]) -> "ModelCard":
        fields = {name: data[name] for name in cls.__dataclass_fields__ if name in data}
        for name in ("eos_ids", "aliases", "capabilities"):
            if name in fields:
                fields[name] = tuple(fields[name])
        return cls(**fields)
