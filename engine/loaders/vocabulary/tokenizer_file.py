"""Reads a folder's tokenizer.json and refuses one that contradicts itself or the model; never tokenizes."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any, Final

from engine.errors import ModelFileError
from engine.loaders.files import corrupt, read_json

_MAX_BYTES: Final = 64 << 20  # Gemma 3 has 33 MB


def read_tokenizer(path: Path, vocab_size: int) -> dict[str, object]:
    """The document, checked: byte-pair merges that build longer tokens out of known ones, ids inside the vocabulary.

    Added tokens that the embedding has no row for are left out: no model has seen them. So is what training did to fit
    texts into batches: a prompt is neither cut nor filled up. Raises ModelFileError.
    """
    document = read_json(path, _MAX_BYTES)
    model = document.get("model")
    if not isinstance(model, dict):
        raise corrupt(path, "it has no 'model'")
    kind = model.get("type", "BPE")  # old files leave it out
    if kind != "BPE":
        raise ModelFileError(
            f"model file {path}",
            f"its tokenizer is of the kind {str(kind)[:40]!r}; only byte-pair encoding is read",
            "use a model of a supported kind",
            code="model_unsupported",
        )
    added = _added_tokens(document.get("added_tokens", []), path)
    rowless = {token["content"] for token in added if token["id"] >= vocab_size}
    vocabulary = _vocabulary(model.get("vocab"), rowless, vocab_size, path)
    kept = [token for token in added if token["content"] not in rowless]
    _check_ids(kept, vocabulary, path)
    model["vocab"], model["merges"] = vocabulary, _merges(model.get("merges"), vocabulary, path)
    document["added_tokens"] = kept
    document["truncation"] = document["padding"] = None
    _check_surroundings(document, vocab_size, path)
    return document


def special_tokens(document: dict[str, object]) -> dict[str, int]:
    """Added tokens that never show as text, by their content."""
    added = document["added_tokens"]
    assert isinstance(added, list)
    return {token["content"]: token["id"] for token in added if token.get("special")}


def puts_in_front(document: dict[str, object], token: str | None) -> bool:
    """Whether the tokenizer itself begins every text with this token."""
    for step in _post_processors(document):
        single = step.get("single")
        if step.get("type") == "TemplateProcessing" and isinstance(single, list) and single:
            first = single[0].get("SpecialToken") if isinstance(single[0], dict) else None
            if isinstance(first, dict) and first.get("id") == token:
                return True
    return False


def _post_processors(document: dict[str, object]) -> Iterator[dict[str, Any]]:
    """Each of them, also those in a sequence."""
    found = [document.get("post_processor")]
    while found:
        step = found.pop()
        if isinstance(step, dict):
            yield step
            steps = step.get("processors")
            found += steps if isinstance(steps, list) else []


def _check_surroundings(document: dict[str, object], vocab_size: int, path: Path) -> None:
    """What is put around a whole prompt has rows in the embedding: a template's tokens, or BERT's pair of them."""
    for step in _post_processors(document):
        templates = step.get("special_tokens")
        ids = (
            [each.get("ids") for each in templates.values() if isinstance(each, dict)]
            if isinstance(templates, dict)
            else []
        )
        pairs = [step.get(name) for name in ("sep", "cls")]
        ids += [pair[1:] for pair in pairs if isinstance(pair, list)]
        for index in (index for some in ids if isinstance(some, list) for index in some):
            if not isinstance(index, int) or not 0 <= index < vocab_size:
                raise corrupt(path, f"it puts token {str(index)[:40]} around a text, which is none of the {vocab_size}")


def _vocabulary(entries: object, rowless: set[str], vocab_size: int, path: Path) -> dict[str, int]:
    if not isinstance(entries, dict) or not entries:
        raise corrupt(path, "it has no vocabulary")
    kept = {token: index for token, index in entries.items() if token not in rowless}
    for token, index in kept.items():
        if not isinstance(index, int) or isinstance(index, bool) or not 0 <= index < vocab_size:
            raise corrupt(path, f"token {token[:40]!r} has an id that is none of the model's {vocab_size}")
    if len(set(kept.values())) != len(kept):
        raise corrupt(path, "two tokens have the same id")
    return kept


def _check_ids(added: list[dict[str, Any]], vocabulary: dict[str, int], path: Path) -> None:
    """One token, one id. A reader that finds two numbers tokens anew, beyond the embedding."""
    contents = {index: token for token, index in vocabulary.items()}
    for token in added:
        content, index = token["content"], token["id"]
        if contents.setdefault(index, content) != content or vocabulary.get(content, index) != index:
            raise corrupt(path, f"the added token {content[:40]!r} does not have the id {index} for itself alone")


def _merges(entries: object, vocabulary: dict[str, int], path: Path) -> list[tuple[str, str]]:
    """Pairs, as both ways of writing them say. No part is empty, so no merge can give one of its own parts."""
    if not isinstance(entries, list):
        raise corrupt(path, "it has no list of merges")
    merges = []
    for entry in entries:
        pair = entry.split(" ") if isinstance(entry, str) else entry
        if not isinstance(pair, list) or len(pair) != 2 or not all(isinstance(part, str) and part for part in pair):
            raise corrupt(path, f"{str(entry)[:80]!r} is no merge of two tokens")
        left, right = pair
        if left not in vocabulary or right not in vocabulary or left + right not in vocabulary:
            raise corrupt(path, f"the merge {str(entry)[:80]!r} does not fit the vocabulary")
        merges.append((left, right))
    return merges


def _added_tokens(entries: object, path: Path) -> list[dict[str, Any]]:
    if not isinstance(entries, list):
        raise corrupt(path, "its added tokens are no list")
    for entry in entries:
        content, index = (entry.get("content"), entry.get("id")) if isinstance(entry, dict) else (None, None)
        if not isinstance(content, str) or not content or not isinstance(index, int) or isinstance(index, bool):
            raise corrupt(path, "an added token has no content or no id")
        if index < 0:
            raise corrupt(path, f"the added token {content[:40]!r} has the id {index}")
    return entries
