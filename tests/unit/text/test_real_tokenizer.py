"""The real model's tokenizer and template, as the engine reads them out of its file."""

from datetime import UTC, datetime

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from engine.loaders import describe
from engine.loaders.description import ModelDescription
from headrace.models import CATALOGUE, path_of
from headrace.settings import PathSettings
from headrace.text.chat_template import ChatTemplate
from headrace.text.detokenizer import TextStream, whole_text
from headrace.text.prompt import ChatPrompt
from headrace.text.tokenizer import Tokenizer

pytestmark = pytest.mark.real_model
NOW = datetime(2026, 11, 22, tzinfo=UTC)


@pytest.fixture(scope="module")
def model() -> ModelDescription:
    path = path_of(CATALOGUE["smollm2-135m-instruct"], PathSettings().models_dir)
    if not path.exists():
        pytest.skip("the model file is not here; `make test` fetches it")
    return describe(path)


@pytest.fixture(scope="module")
def tokenizer(model: ModelDescription) -> Tokenizer:
    return Tokenizer(model.tokenizer_json)


def test_a_conversation_has_the_ids_the_model_was_trained_on(model: ModelDescription, tokenizer: Tokenizer) -> None:
    assert model.chat_template is not None
    chat = ChatPrompt(tokenizer, ChatTemplate(model.chat_template), bos_id=model.bos_id, eos_id=2)
    ids = chat.encode(*chat.render([{"role": "user", "content": "hello"}], NOW))
    system = (9690, 198, 2683, 359, 253, 5356, 5646, 11173, 3365, 3511, 308, 34519, 28, 7018, 411, 407, 19712, 8182)
    assert ids == (1, *system, 2, 198, 1, 4093, 198, 28120, 2, 198, 1, 520, 9531, 198)


# Its vocabulary lacks some bytes: control characters, and the first bytes of rare and unassigned planes.
WRITABLE = st.text(
    st.characters(min_codepoint=0x20, max_codepoint=0xFFFF, exclude_categories=["Cs"]) | st.just("\U0001f680")
)


@given(WRITABLE)
@settings(deadline=None)  # a busy machine is no fault of a text
def test_text_comes_back_token_by_token(tokenizer: Tokenizer, text: str) -> None:
    stream = TextStream(tokenizer)
    ids = tokenizer.encode(text, special=False)
    assert "".join(stream.push([token_id]).text for token_id in ids) + stream.flush() == text


def test_stop_strings_across_its_tokens(tokenizer: Tokenizer) -> None:
    ids = tokenizer.encode("The answer is 42.\n\nUser: and then?", special=False)
    assert whole_text(tokenizer, ids, ["\nUser:", "\n\nUs"]) == "The answer is 42."
