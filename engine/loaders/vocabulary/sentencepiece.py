"""SentencePiece BPE (Llama 2, Mistral, Gemma) out of a GGUF header: merges made from the scores of its pieces.

A text is one word. Its spaces become U+2581, its characters are joined pair by pair, the pair whose piece has the
highest score first, and what is no piece in the end is written as bytes (Kudo and Richardson, 2018, arXiv 1808.06226).
`tokenizers` wants that as a list of merges in order: every way to cut a piece into two pieces, by the score of the
whole. Where one piece can be made at two places that overlap, SentencePiece takes the left one, and a list has to
choose a cut instead: the one with the longer left part.
"""

from typing import Final

from engine.loaders.vocabulary.document import NORMAL, Document, Vocabulary, document, sequence

_MAX_CUTS: Final = 4 << 20
_MAX_MERGES: Final = 1 << 20  # twice what Gemma 3 has
_MAX_CHARACTERS: Final = 16 << 20  # of all merges
_SPACE: Final = "\u2581"
_TO_MARKS: Final[Document] = {"type": "Replace", "pattern": {"String": " "}, "content": _SPACE}
_TO_SPACES: Final[Document] = {"type": "Replace", "pattern": {"String": _SPACE}, "content": " "}
_JOIN: Final[tuple[Document, ...]] = (_TO_SPACES, {"type": "ByteFallback"}, {"type": "Fuse"})


def document_of(vocabulary: Vocabulary) -> Document:
    """The tokenizer of such a header. Raises ModelFileError."""
    metadata = vocabulary.metadata
    scores = metadata.reals("tokenizer.ggml.scores", len(vocabulary.tokens))
    unknown = metadata.token_id("tokenizer.ggml.unknown_token_id", len(vocabulary.tokens))
    prefixed = metadata.flag("tokenizer.ggml.add_space_prefix", True)
    first: Document = {"type": "Prepend", "prepend": _SPACE}
    last: Document = {"type": "Strip", "content": " ", "start": 1, "stop": 0}
    return document(
        vocabulary,
        normalizer=sequence("normalizers", [first, _TO_MARKS]) if prefixed else _TO_MARKS,
        pre_tokenizer=None,
        decoder=sequence("decoders", [*_JOIN, last] if prefixed else [*_JOIN]),
        starts=True,
        model={
            "unk_token": None if unknown is None else vocabulary.tokens[unknown],
            "fuse_unk": True,
            "byte_fallback": True,
            "merges": _merges(vocabulary, scores),
        },
    )


def _merges(vocabulary: Vocabulary, scores: list[float]) -> list[tuple[str, str]]:
    """All cuts of all normal pieces into two of them; 0.9 s for the 262,144 of Gemma 3."""
    described = zip(vocabulary.tokens, vocabulary.kinds, scores, strict=True)
    pieces = {token: score for token, kind, score in described if kind == NORMAL}
    cuts = sum(map(len, pieces))
    if cuts > _MAX_CUTS:
        raise vocabulary.metadata.fail(f"its pieces can be cut in two at {cuts} places, and {_MAX_CUTS} are tried")
    whole_cuts = (
        (score, cut, piece)
        for piece, score in pieces.items()
        for cut in range(1, len(piece))
        if piece[:cut] in pieces and piece[cut:] in pieces
    )
    found, characters = [], 0
    for each in whole_cuts:
        found.append(each)
        characters += len(each[2])
        if len(found) > _MAX_MERGES or characters > _MAX_CHARACTERS:
            raise vocabulary.metadata.fail(
                f"its pieces make more than {_MAX_MERGES} merges, or of more than {_MAX_CHARACTERS} characters"
            )
    found.sort(reverse=True)
    return [(piece[:cut], piece[cut:]) for _, cut, piece in found]
