"""Byte-level BPE (GPT-2's kind) out of a GGUF header: merges as they stand there, words as its pre-tokenizer cuts them.

`tokenizer.ggml.pre` names the cut; the names are llama.cpp's.
"""

from dataclasses import dataclass
from typing import Final

from engine.loaders.vocabulary.document import Document, Vocabulary, document, sequence


@dataclass(frozen=True, slots=True)
class WordCut:
    """How a text falls into words, each of which is merged by itself.

    `whole_words`: a word that is a token is that token, whatever the merges say. `starts`: prompts begin with the start
    token where the file does not say. `composes`: the text is brought into Unicode's composed form (NFC) first.
    """

    pre_tokenizer: Document
    whole_words: bool = False
    starts: bool = False
    composes: bool = False


def document_of(vocabulary: Vocabulary) -> Document:
    """The tokenizer of such a header. Raises ModelFileError."""
    metadata = vocabulary.metadata
    name = metadata.text("tokenizer.ggml.pre", "default")
    if name not in WORD_CUTS:
        known = ", ".join(WORD_CUTS)
        raise metadata.fail(f"its pre-tokenizer {name[:40]!r} is unknown (known: {known})", unsupported=True)
    cut = WORD_CUTS[name]
    return document(
        vocabulary,
        normalizer={"type": "NFC"} if cut.composes else None,
        pre_tokenizer=cut.pre_tokenizer,
        decoder=_byte_level(use_regex=True),
        starts=cut.starts,
        model={"ignore_merges": cut.whole_words, "merges": _merges(vocabulary)},
    )


def _merges(vocabulary: Vocabulary) -> list[tuple[str, str]]:
    """Merges as pairs; each part and the merged token must be in the vocabulary, or the tokenizer would not load."""
    ids = vocabulary.ids
    merges: list[tuple[str, str]] = []
    for line in vocabulary.metadata.texts("tokenizer.ggml.merges"):
        left, _, right = line.partition(" ")
        if not left or not right or left not in ids or right not in ids or left + right not in ids:
            raise vocabulary.metadata.fail(f"the merge {line[:80]!r} does not fit the vocabulary")
        merges.append((left, right))
    return merges


def _byte_level(*, use_regex: bool) -> Document:
    return {"type": "ByteLevel", "add_prefix_space": False, "trim_offsets": True, "use_regex": use_regex}


def _split(pattern: str) -> Document:
    split: Document = {"type": "Split", "pattern": {"Regex": pattern}, "behavior": "Isolated", "invert": False}
    return sequence("pretokenizers", [split, _byte_level(use_regex=False)])


_WORDS: Final = (
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{{L}}\p{{N}}]?\p{{L}}+|{digits}| ?[^\s\p{{L}}\p{{N}}]+[\r\n]*|"
    r"\s*[\r\n]+|\s+(?!\S)|\s+"
)
_GPT2: Final = WordCut(_byte_level(use_regex=True))
_LLAMA3: Final = WordCut(_split(_WORDS.format(digits=r"\p{N}{1,3}")), whole_words=True, starts=True)
_QWEN2: Final = WordCut(_split(_WORDS.format(digits=r"\p{N}")), composes=True)
_SMOLLM: Final = WordCut(
    sequence("pretokenizers", [{"type": "Digits", "individual_digits": True}, _byte_level(use_regex=True)])
)

WORD_CUTS: Final[dict[str, WordCut]] = {
    "default": _GPT2,
    "gpt-2": _GPT2,
    "smollm": _SMOLLM,
    "llama-bpe": _LLAMA3,
    "llama3": _LLAMA3,
    "qwen2": _QWEN2,
}
