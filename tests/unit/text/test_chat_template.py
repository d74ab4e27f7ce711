"""Templates: what they may use, and what happens when they refuse."""

from datetime import UTC, datetime

import pytest

from headrace.contract.errors import InvalidRequest
from headrace.text import chat_template
from headrace.text.chat_template import ChatTemplate

NOW = datetime(2026, 11, 22, tzinfo=UTC)
MESSAGES = [{"role": "user", "content": "hi <b>\u65e5</b>"}]


def render(source: str) -> str:
    return ChatTemplate(source).render(MESSAGES, bos_token="<s>", eos_token="</s>", now=NOW)


@pytest.mark.parametrize(
    ("source", "expected"),
    [
        ("{{ bos_token }}{{ messages[0].content }}{{ eos_token }}", "<s>hi <b>\u65e5</b></s>"),
        ("{{ messages | tojson }}", '[{"role": "user", "content": "hi <b>\u65e5</b>"}]'),
        ("{{ strftime_now('%d %b %Y') }}", "22 Nov 2026"),
        ("{% if add_generation_prompt %}go{% endif %}{% if tools %}tools{% endif %}", "go"),
        ("  {% if true %}\nx\n  {% endif %}\ny", "x\ny"),
        ("{% for m in messages * 3 %}{% if loop.index > 2 %}{% break %}{% endif %}.{% endfor %}", ".."),
    ],
)
def test_what_templates_of_open_models_use(source: str, expected: str) -> None:
    assert render(source) == expected


@pytest.mark.parametrize(
    ("source", "reason"),
    [
        ("{{ raise_exception('Only user and assistant, please') }}", "Only user and assistant, please"),
        ("{{ messages[7].content }}", "no element 7"),
        ("{{ 1 / 0 }}", "zero"),
        ("{{ messages.append(1) }}", "unsafe"),
        ("{{ ''.__class__.__mro__ }}", "unsafe"),
        ("{% for i in range(10000000) %}x{% endfor %}", "[Rr]ange"),
        ("{% for", "not valid"),
        ("{{ x | nothing }}", "not valid"),
    ],
)
def test_a_template_that_fails_is_the_request_s_error(source: str, reason: str) -> None:
    with pytest.raises(InvalidRequest, match=reason) as caught:
        render(source)
    assert caught.value.param == "messages"


def test_a_runaway_template_is_stopped(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(chat_template, "MAX_CHARACTERS", 1_000)
    with pytest.raises(InvalidRequest, match="exceeds 1,000"):
        render("{% for i in range(9999) %}{% for j in range(9999) %}spin{% endfor %}{% endfor %}")
