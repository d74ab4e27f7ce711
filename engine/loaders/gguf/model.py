"""What a GGUF file says of its model, and its weights; knows which key says what."""

from pathlib import Path
from types import TracebackType
from typing import Final, Self

import numpy as np

from engine.loaders.architectures import IN_HEADER, FromHeader, Header
from engine.loaders.architectures.limits import MAX_HEAD_DIM
from engine.loaders.description import END_OF_TURN, ModelDescription
from engine.loaders.files import sha256_of, size_of
from engine.loaders.gguf.file import GGUFFile
from engine.loaders.inventory import check_inventory
from engine.loaders.metadata import Metadata
from engine.loaders.tensors import count_values
from engine.loaders.unpacking import unpack
from engine.loaders.vocabulary import tokenizer_json
from engine.loaders.vocabulary.document import CONTROL
from engine.loaders.weights import WeightFile
from engine.models.shape import ModelShape

_ROPE_FACTORS: Final = "rope_freqs.weight"


class GGUFModel:
    """An open GGUF file. Use as a context manager. Raises ModelFileError from the constructor and from `describe`."""

    def __init__(self, path: Path) -> None:
        self._file = GGUFFile(path)
        try:
            self._metadata = Metadata(self._file.metadata, path)
            self._architecture = self._find_architecture()
            self.shape: ModelShape = self._architecture.shape(self._header())
            self._own_output = "output.weight" in self._file.tensors
            self._check_tensors()
        except BaseException:
            self.close()
            raise

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, tb: TracebackType | None) -> None:
        self.close()

    def close(self) -> None:
        self._file.close()

    @property
    def weights(self) -> WeightFile:
        return WeightFile(
            self._file,
            self._architecture.layout,
            self._file.path,
            head_dim=self.shape.head_dim,
            own_output=self._own_output,
        )

    def describe(self) -> ModelDescription:
        """Reads the whole file once, for its hash."""
        metadata, vocab_size = self._metadata, self.shape.vocab_size
        tokenizer, adds_bos = tokenizer_json(metadata, vocab_size)
        counts = count_values(self._file.tensors.values())
        return ModelDescription(
            architecture=metadata.text("general.architecture"),
            name=metadata.line("general.name", "") or self._file.path.stem,
            revision=sha256_of(self._file.path),
            shape=self.shape,
            eos_ids=_eos_ids(metadata, vocab_size),
            bos_id=metadata.token_id("tokenizer.ggml.bos_token_id", vocab_size),
            add_bos=adds_bos,
            tokenizer_json=tokenizer,
            chat_template=metadata.template("tokenizer.chat_template"),
            parameter_count=counts.total(),
            quantization=counts.most_common(1)[0][0],
            licence=metadata.line("general.license", ""),
            file_bytes=size_of(self._file.path),
        )

    def _find_architecture(self) -> FromHeader:
        named = self._metadata.text("general.architecture")
        if named not in IN_HEADER:
            raise self._metadata.fail(
                f"its architecture {named[:80]!r} is not supported (supported: {', '.join(IN_HEADER)})",
                unsupported=True,
            )
        if self._metadata.size("split.count", 1 << 16, default=1) > 1:
            raise self._metadata.fail("it is one of several parts of a model; merge them first", unsupported=True)
        return IN_HEADER[named]

    def _header(self) -> Header:
        embedding = self._file.tensors.get("token_embd.weight")
        if embedding is None or len(embedding.shape) != 2:
            raise self._metadata.fail("it has no two-dimensional tensor 'token_embd.weight'")
        rows, width = embedding.shape
        return Header(self._metadata, (rows, width), self._rope_factors())

    def _rope_factors(self) -> tuple[float, ...] | None:
        """What each angle is divided by, which a converter computes for Llama 3.1 and later."""
        info = self._file.tensors.get(_ROPE_FACTORS)
        if info is None:
            return None
        if len(info.shape) != 1 or info.shape[0] > MAX_HEAD_DIM:
            raise self._metadata.fail(f"its tensor {_ROPE_FACTORS!r} is of shape {info.shape}")
        values = unpack(self._file.raw(_ROPE_FACTORS), info.format, info.shape)
        if not (np.isfinite(values).all() and (values > 0).all()):
            raise self._metadata.fail(f"its tensor {_ROPE_FACTORS!r} holds what no angle can be divided by")
        return tuple(values.tolist())

    def _check_tensors(self) -> None:
        check_inventory(
            self._file.tensors,
            self._architecture.layout.names,
            self.shape,
            self._file.path,
            own_output=self._own_output,
            ignored=(_ROPE_FACTORS,),
        )


def _eos_ids(metadata: Metadata, vocab_size: int) -> tuple[int, ...]:
    """The declared ends first, then the control tokens that are known to end a turn."""
    declared = [metadata.token_id(f"tokenizer.ggml.{name}_token_id", vocab_size) for name in ("eos", "eot", "eom")]
    found = [token_id for token_id in declared if token_id is not None]
    if metadata.has("tokenizer.ggml.token_type"):
        tokens, kinds = (
            metadata.texts("tokenizer.ggml.tokens"),
            metadata.whole_numbers("tokenizer.ggml.token_type", vocab_size),
        )
        pairs = enumerate(zip(tokens, kinds, strict=True))
        found += [index for index, (token, kind) in pairs if kind == CONTROL and token in END_OF_TURN]
    return tuple(dict.fromkeys(found))
