"""Follow one job over Redis pub/sub, miss nothing and see nothing twice. Plain redis-py, nothing of Headrace.

    python examples/pubsub.py job_… --redis-url redis://127.0.0.1:6379/0

A channel keeps nothing for those who come late. A job has a journal besides, and four rules make the two into one:

1. Subscribe and wait for the acknowledgement; then read what came before. An acknowledgement also comes from a
   connection that redis-py made anew: then it means the same.
2. Drop what was seen already: deltas by choice and offset, other events by their seq.
3. Where a seq or an offset is missing, and after a second of silence, read again.
4. The job is over with completed, failed, cancelled or expired, and only then.

What came before is read from the gateway (`GET /v1/jobs/<id>/events`, text and all), or with `--backfill journal` from
the stream `hr:ev:<id>` itself. The stream holds token ids and no text, so text is then made of all ids with the model's
tokenizer, which is in Redis too. (A job with stop strings may have ids behind the stop: there the gateway's text ends
where it should, and yours must be cut.)
"""

import argparse
import json
import os
import struct
import sys
import time
import urllib.error
import urllib.request
from collections import deque
from collections.abc import Callable, Iterator
from typing import Any

import redis
from tokenizers import Tokenizer

LAST = {"completed", "failed", "cancelled", "expired"}
SILENCE_S = 1.0
PATIENCE_S = 60.0
Event = dict[str, Any]


class Story:
    """A job as it has been told so far."""

    def __init__(self) -> None:
        self.seq = 0
        self.end: Event | None = None
        self.revision = ""
        self.ids: dict[int, list[int]] = {}
        self.texts: dict[int, str] = {}

    def add(self, event: Event) -> bool:
        """Take what is new and drop what is not; False when something is missing in front of it."""
        if event["seq"] > self.seq + 1:
            return False
        if event["type"] == "delta":
            ids = self.ids.setdefault(event["choice"], [])
            end = event["offset"] + len(event["token_ids"])
            if event["offset"] != len(ids):
                return end <= len(ids)  # all of it was seen, or there is a hole
            ids += event["token_ids"]
            self.texts[event["choice"]] = self.texts.get(event["choice"], "") + event.get("text", "")
        elif event["type"] in LAST:
            self.end = event
        self.revision = event.get("revision", self.revision)
        self.seq = max(self.seq, event["seq"])
        return True


class Live:
    """The job's channel. What was heard waits here until somebody asks."""

    def __init__(self, store: redis.Redis, job: str) -> None:
        self.heard: deque[Event] = deque()
        self._channel = store.pubsub()
        self._channel.subscribe(f"hr:live:{job}")
        if not self._read(PATIENCE_S):
            raise SystemExit("Redis did not acknowledge the subscription.")

    def next(self, timeout_s: float) -> Event | None:
        """The next event; None after that much silence, and when some may have been missed."""
        if not self.heard and not self._read(timeout_s):
            return None
        return self.heard.popleft() if self.heard else None

    def overlaps(self, story: Story) -> bool:
        """Whether what was heard goes on where the story ends, so that no more history is needed."""
        while self._read(0):
            pass
        return bool(self.heard) and self.heard[0]["seq"] <= story.seq + 1

    def _read(self, timeout_s: float) -> bool:
        try:
            message = self._channel.get_message(timeout=timeout_s)
        except (redis.ConnectionError, redis.TimeoutError):
            time.sleep(0.2)  # redis-py connects and subscribes anew at the next call
            return False
        if message and message["type"] == "message":
            self.heard.append(json.loads(message["data"]))
        return message is not None


def from_gateway(url: str, job: str) -> Iterator[Event]:
    """All events so far with their text. The connection would go on live, so a short silence is its end here."""
    request = urllib.request.Request(f"{url}/v1/jobs/{job}/events", headers={"Accept": "text/event-stream"})
    try:
        with urllib.request.urlopen(request, timeout=SILENCE_S / 2) as response:
            for line in response:
                if line.startswith(b"data:"):
                    yield json.loads(line[5:])
    except urllib.error.HTTPError as error:
        if error.code < 500:
            raise SystemExit(json.load(error)["error"]["message"]) from None
    except OSError:
        return  # silence, or the gateway is away for the moment


def from_journal(store: redis.Redis, job: str) -> Iterator[Event]:
    """All events so far as the stream has them: a delta is `choice offset [finish_reason]` and packed ids."""
    entries = store.xrange(f"hr:ev:{job}")
    if not entries:
        raise SystemExit(f"There are no events of {job}: an unknown job, or one that ended 15 minutes ago.")
    for entry_id, fields in entries:
        seq, event = int(entry_id.split(b"-")[0]), fields[b"event"].decode()
        if event.startswith("{"):
            yield {"seq": seq, **json.loads(event)}
            continue
        choice, offset, *finish = event.split(" ")
        ids = list(struct.unpack(f"<{len(fields[b'ids']) // 4}I", fields[b"ids"]))
        yield {
            "seq": seq,
            "type": "delta",
            "choice": int(choice),
            "offset": int(offset),
            "token_ids": ids,
            "finish_reason": finish[0] if finish else None,
        }


class Screen:
    """Prints what it has not printed before, whoever tells it and how often."""

    def __init__(self, text_of: Callable[[Story], str], as_json: bool) -> None:
        self._text_of = text_of
        self._as_json = as_json
        self._printed = 0
        self._events: set[tuple[Any, ...]] = set()

    def show(self, story: Story, event: Event) -> None:
        if self._as_json:
            key = (event["type"], event.get("choice"), event.get("offset", event["seq"]), event.get("finish_reason"))
            if key not in self._events:
                self._events.add(key)
                print(json.dumps(event, ensure_ascii=False), flush=True)
            return
        text = self._text_of(story)
        print(text[self._printed :], end="", flush=True)
        self._printed = max(self._printed, len(text))


def follow(live: Live, history: Callable[[], Iterator[Event]], screen: Screen) -> Event:
    """The four rules. Gives up when neither Redis nor gateway says anything at all for a minute."""
    story, heard_at = Story(), time.monotonic()
    event: Event | None = None  # after the first acknowledgement, too, something may have been missed
    while story.end is None:
        if event is not None and story.add(event):
            screen.show(story, event)
            heard_at = time.monotonic()
        else:
            story = Story()
            for past in history():
                story.add(past)
                screen.show(story, past)
                heard_at = time.monotonic()
                if live.overlaps(story):
                    break
        if time.monotonic() - heard_at > PATIENCE_S:
            raise SystemExit("Nothing was heard for a minute.")
        event = None if story.end else live.next(SILENCE_S)
    return story.end


def tokenizer_text(store: redis.Redis) -> Callable[[Story], str]:
    """Text made of ids, with the tokenizer of the revision that the job runs on."""
    tokenizers: dict[str, Tokenizer] = {}

    def text(story: Story) -> str:
        if not story.revision:
            return ""
        if story.revision not in tokenizers:
            ref = store.hget("hr:tokenizers", story.revision).decode()
            tokenizers[story.revision] = Tokenizer.from_str(store.get(f"hr:tokenizer:{ref}").decode())
        decoded = tokenizers[story.revision].decode(story.ids.get(0, []))
        return decoded if story.end else decoded.rstrip("\ufffd")  # the rest of a character is still to come

    return text


def main() -> int:
    parser = argparse.ArgumentParser(description="Follow one job over Redis pub/sub.")
    parser.add_argument("job", help="job_…")
    parser.add_argument("--redis-url", default=os.environ.get("HEADRACE_REDIS__URL", "redis://127.0.0.1:6379/0"))
    gateways = os.environ.get("HEADRACE_URL", "http://127.0.0.1:8080").split(",")
    parser.add_argument("--url", default=gateways[0], help="the gateway")
    parser.add_argument("--backfill", choices=("gateway", "journal"), default="gateway")
    parser.add_argument("--json", action="store_true", help="the events instead of the first choice's text")
    options = parser.parse_args()
    try:
        with redis.Redis.from_url(options.redis_url) as store:
            live = Live(store, options.job)
            if options.backfill == "gateway":
                screen = Screen(lambda story: story.texts.get(0, ""), options.json)
                end = follow(live, lambda: from_gateway(options.url, options.job), screen)
            else:
                screen = Screen(tokenizer_text(store), options.json)
                end = follow(live, lambda: from_journal(store, options.job), screen)
    except redis.RedisError as error:
        raise SystemExit(f"Redis: {error}") from None
    if not options.json:
        print()
    if end["type"] != "completed":
        print(f"{end['type']}: {end.get('error', {}).get('message', '')}", file=sys.stderr)
    return 0 if end["type"] == "completed" else 1


if __name__ == "__main__":
    sys.exit(main())
