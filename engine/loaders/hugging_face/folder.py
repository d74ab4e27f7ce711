"""What a Hugging Face folder says of its model, and its weights; knows which file says what.

config.json has the sizes, generation_config.json and tokenizer_config.json the ends of a turn, tokenizer.json the
vocabulary, chat_template.jinja the template, one or many .safetensors the weights.
"""

import hashlib
from pathlib import Path
from types import TracebackType
from typing import Final, Self

from engine.loaders.architectures import IN_CONFIG, FromConfig
from engine.loaders.description import END_OF_TURN, ModelDescription
from engine.loaders.files import corrupt, is_there, missing, read_bytes, read_json, sha256_of, size_of
from engine.loaders.hugging_face.shards import INDEX, Shards
from engine.loaders.inventory import check_inventory
from engine.loaders.metadata import MAX_TEMPLATE, Metadata
from engine.loaders.tensors import count_values
from engine.loaders.vocabulary.document import as_text
from engine.loaders.vocabulary.tokenizer_file import puts_in_front, read_tokenizer, special_tokens
from engine.loaders.weights import WeightFile
from engine.models.shape import ModelShape

_CONFIG, _GENERATION, _TOKENIZER = "config.json", "generation_config.json", "tokenizer.json"
_TOKENIZER_CONFIG, _TEMPLATE = "tokenizer_config.json", "chat_template.jinja"
_MAX_JSON_BYTES: Final = 8 << 20
_NOT_READ: Final = (".rotary_emb.inv_freq",)  # made from the config, whatever old checkpoints say


class ModelFolder:
    """An open model folder; `path` is the folder or a .safetensors file in it. Use as a context manager.

    Raises ModelFileError from the constructor and from `describe`.
    """

    def __init__(self, path: Path) -> None:
        self._folder, named = (path, None) if path.is_dir() else (path.parent, path.name)
        if not is_there(self._folder / _CONFIG):
            raise missing(self._folder, f"there is no {_CONFIG} in this folder")
        self._config = Metadata(read_json(self._folder / _CONFIG, _MAX_JSON_BYTES), self._folder / _CONFIG)
        self._architecture = _architecture(self._config)
        self.shape: ModelShape = self._architecture.shape(self._config)
        self._shards = Shards(self._folder, named)
        try:
            self._tied = self._config.flag("tie_word_embeddings", self._architecture.tied)
            self._check_tensors()
        except BaseException:
            self.close()
            raise

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, tb: TracebackType | None) -> None:
        self.close()

    def close(self) -> None:
        self._shards.close()

    @property
    def weights(self) -> WeightFile:
        return WeightFile(
            self._shards,
            self._architecture.layout,
            self._folder,
            head_dim=self.shape.head_dim,
            own_output=not self._tied,
        )

    def describe(self) -> ModelDescription:
        """Reads the small files, and the large ones for their hash."""
        vocab_size = self.shape.vocab_size
        tokenizer = read_tokenizer(self._need(_TOKENIZER), vocab_size)
        generation, tokenizer_config = self._optional(_GENERATION), self._optional(_TOKENIZER_CONFIG)
        special = special_tokens(tokenizer)
        bos_id = self._config.token_id("bos_token_id", vocab_size)
        if bos_id is None:
            bos_id = special.get(_token_text(tokenizer_config, "bos_token"))
        counts = count_values(self._shards.tensors.values())
        revision, file_bytes = self._revision()
        return ModelDescription(
            architecture=self._architecture.name,
            name=self._folder.resolve().name,
            revision=revision,
            shape=self.shape,
            eos_ids=_eos_ids((generation, self._config), tokenizer_config, special, vocab_size),
            bos_id=bos_id,
            add_bos=any(puts_in_front(tokenizer, text) for text, index in special.items() if index == bos_id),
            tokenizer_json=as_text(tokenizer),
            chat_template=self._chat_template(tokenizer_config),
            parameter_count=counts.total(),
            quantization=counts.most_common(1)[0][0],
            licence="",
            file_bytes=file_bytes,
        )

    def _check_tensors(self) -> None:
        check_inventory(
            self._shards.tensors,
            self._architecture.layout.names,
            self.shape,
            self._folder,
            own_output=not self._tied,
            ignored=(*_NOT_READ, "lm_head.weight") if self._tied else _NOT_READ,
        )

    def _need(self, name: str) -> Path:
        path = self._folder / name
        if not is_there(path):
            raise missing(self._folder, f"there is no {name} in this folder")
        return path

    def _optional(self, name: str) -> Metadata:
        path = self._folder / name
        return Metadata(read_json(path, _MAX_JSON_BYTES) if is_there(path) else {}, path)

    def _chat_template(self, tokenizer_config: Metadata) -> str | None:
        path = self._folder / _TEMPLATE
        if not is_there(path):
            return _template_in(tokenizer_config)
        try:
            return read_bytes(path, MAX_TEMPLATE).decode("utf-8")
        except UnicodeDecodeError as error:
            raise corrupt(path, "it is not UTF-8") from error

    def _revision(self) -> tuple[str, int]:
        """SHA-256 over names and SHA-256 of every file that has a say, in order of names; and their bytes together."""
        said = (_CONFIG, _GENERATION, _TOKENIZER, _TOKENIZER_CONFIG, _TEMPLATE, INDEX)
        names = sorted({*self._shards.names, *(name for name in said if is_there(self._folder / name))})
        lines = [f"{name} {sha256_of(self._folder / name)}\n" for name in names]
        size = sum(size_of(self._folder / name) for name in names)
        return hashlib.sha256("".join(lines).encode()).hexdigest(), size


def _architecture(config: Metadata) -> FromConfig:
    named = config.texts("architectures")
    known = next((name for name in named if name in IN_CONFIG), None)
    if known is None:
        raise config.fail(
            f"its architecture {', '.join(named)[:120]!r} is not supported (supported: {', '.join(IN_CONFIG)})",
            unsupported=True,
        )
    return IN_CONFIG[known]


def _eos_ids(
    said: tuple[Metadata, ...], tokenizer_config: Metadata, special: dict[str, int], vocab_size: int
) -> tuple[int, ...]:
    """The declared ends first, then the special tokens that are known to end a turn."""
    declared = [token_id for metadata in said for token_id in metadata.token_ids("eos_token_id", vocab_size)]
    named = (_token_text(tokenizer_config, "eos_token"), *END_OF_TURN)
    return tuple(dict.fromkeys([*declared, *(special[text] for text in named if text in special)]))


def _token_text(tokenizer_config: Metadata, key: str) -> str:
    """A token as it is written, alone or as an object with its flags; empty where there is none."""
    if isinstance(tokenizer_config.raw(key), dict):
        section = tokenizer_config.section(key)
        return "" if section is None else section.text("content")
    return tokenizer_config.text(key, "")


def _template_in(tokenizer_config: Metadata) -> str | None:
    """The template, or the one called default of several."""
    found = tokenizer_config.raw("chat_template")
    if not isinstance(found, list):
        return tokenizer_config.template("chat_template")
    default = [entry for entry in found if isinstance(entry, dict) and entry.get("name") == "default"]
    return Metadata(default[-1], tokenizer_config.path).template("template") if default else None
