"""The whole road of a prompt and a result that are too large for the record: through the blob store and back."""

from pathlib import Path

import httpx2

from headrace import Client
from tests.e2e.fleet import running


def test_large_prompts_and_results(tmp_path: Path) -> None:
    environ = {"HEADRACE_BLOBS__THRESHOLD_BYTES": "1000"}
    with running(tmp_path, model="fake:", environ=environ) as fleet, Client(fleet.url) as client:
        prompt = "large " * 100
        job = client.submit(model="fake", prompt=prompt, max_tokens=400, seed=1, echo=True)
        text = prompt + "".join(job.text_stream())
        assert len(text) == 600 + 400
        assert fleet.redis.hget(f"hr:job:{job.id}", "prompt_ref") == f"blob:prompts/{job.id}".encode()
        assert not fleet.redis.exists(f"hr:result:{job.id}")
        answer = httpx2.get(f"{fleet.url}/v1/jobs/{job.id}", timeout=10).json()
        assert answer["result"]["choices"][0]["text"] == text
        [result] = (fleet.data_dir / "blobs" / "results").iterdir()
        result.unlink()
        lost = httpx2.get(f"{fleet.url}/v1/jobs/{job.id}", timeout=10)
        assert lost.status_code == 410
        assert lost.json()["error"]["code"] == "blob_not_found"
        assert job.id in lost.json()["error"]["message"]
