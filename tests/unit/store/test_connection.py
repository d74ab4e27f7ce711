"""What is not the URL of a Redis is refused in one line, before anything waits for it."""

from collections.abc import Callable

import pytest

from headrace.contract.errors import SetupError
from headrace.store.connection import connect, connect_async


@pytest.mark.parametrize("open_client", [connect, connect_async])
@pytest.mark.parametrize("url", ["http://somewhere", "redis://127.0.0.1:abc", "redis://:secret@127.0.0.1:abc", "6379"])
def test_what_is_no_redis_url_is_refused_without_its_password(open_client: Callable[[str], object], url: str) -> None:
    with pytest.raises(SetupError, match="is not the URL of a Redis") as caught:
        open_client(url)
    assert "redis://127.0.0.1:6379/0" in caught.value.explain()
    assert "secret" not in caught.value.explain()
