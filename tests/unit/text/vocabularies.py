"""Small tokenizers of each kind, built here, so that text tests need no model file."""

from functools import cache

from tokenizers import AddedToken, decoders, models, normalizers, pre_tokenizers, processors
from tokenizers import Tokenizer as Encoder

from headrace.text.tokenizer import WORD_MARK, Tokenizer

SPECIAL = ("<|endoftext|>", "<|im_start|>", "<|im_end|>")
THINK = "<think>"

CHATML = (
    "{% for m in messages %}{{'<|im_start|>' + m['role'] + '\n' + m['content'] + '<|im_end|>' + '\n'}}{% endfor %}"
    "{% if add_generation_prompt %}{{ '<|im_start|>assistant\n' }}{% endif %}"
)


def byte_level_encoder(*, bos: bool = False) -> Encoder:
    """256 byte tokens, three merges, three special tokens and one added token that is text."""
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    merges = [("h", "e"), ("l", "l"), ("he", "ll"), ("Ġ", "t")]
    words = [*alphabet, *("".join(pair) for pair in merges)]
    encoder = Encoder(models.BPE({word: i for i, word in enumerate(words)}, merges))
    encoder.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    encoder.decoder = decoders.ByteLevel()
    encoder.add_special_tokens([AddedToken(token, special=True, normalized=False) for token in SPECIAL])
    encoder.add_tokens([AddedToken(THINK, special=False, normalized=False)])
    if bos:
        encoder.post_processor = processors.TemplateProcessing(
            single=f"{SPECIAL[0]} $A", special_tokens=[(SPECIAL[0], encoder.token_to_id(SPECIAL[0]))]
        )
    return encoder


def sentencepiece_encoder() -> Encoder:
    """As Llama 2 has it: words begin with a mark, unknown characters fall back to byte tokens."""
    words = ["<unk>", "<s>", "</s>", *(f"<0x{byte:02X}>" for byte in range(256)), WORD_MARK, *"abcdehlotw", "é"]
    merges = [(WORD_MARK, "h"), (WORD_MARK, "t"), ("l", "l")]
    words += ["".join(pair) for pair in merges]
    encoder = Encoder(
        models.BPE({word: i for i, word in enumerate(words)}, merges, unk_token="<unk>", byte_fallback=True)
    )
    encoder.normalizer = normalizers.Sequence([normalizers.Prepend(WORD_MARK), normalizers.Replace(" ", WORD_MARK)])
    encoder.decoder = decoders.Sequence(
        [decoders.Replace(WORD_MARK, " "), decoders.ByteFallback(), decoders.Fuse(), decoders.Strip(" ", 1, 0)]
    )
    encoder.add_special_tokens([AddedToken(t, special=True, normalized=False) for t in ("<unk>", "<s>", "</s>")])
    return encoder


@cache
def byte_level() -> Tokenizer:
    return Tokenizer(byte_level_encoder().to_str())


@cache
def sentencepiece() -> Tokenizer:
    return Tokenizer(sentencepiece_encoder().to_str())
