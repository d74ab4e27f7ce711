"""Tokenizers as the JSON that `tokenizers` reads: written from a GGUF's vocabulary, or checked as a folder has it."""

from collections.abc import Callable
from typing import Final

from engine.loaders.metadata import Metadata
from engine.loaders.vocabulary import byte_level, sentencepiece
from engine.loaders.vocabulary.document import Document, Vocabulary, as_text

__all__ = ["tokenizer_json"]

_KINDS: Final[dict[str, Callable[[Vocabulary], Document]]] = {
    "gpt2": byte_level.document_of,
    "llama": sentencepiece.document_of,
}


def tokenizer_json(metadata: Metadata, vocab_size: int) -> tuple[str, bool]:
    """The tokenizer that a GGUF header describes, and whether it puts the start token in front of a prompt.

    Raises ModelFileError for other kinds of tokenizer, an unknown pre-tokenizer, and vocabularies that contradict
    themselves.
    """
    kind = metadata.text("tokenizer.ggml.model")
    if kind not in _KINDS:
        raise metadata.fail(
            f"its tokenizer is {kind[:40]!r}; read are byte-level BPE ('gpt2') and SentencePiece BPE ('llama')",
            unsupported=True,
        )
    vocabulary = Vocabulary.read(metadata, vocab_size)
    document = _KINDS[kind](vocabulary)
    return as_text(document), document["post_processor"] is not None
