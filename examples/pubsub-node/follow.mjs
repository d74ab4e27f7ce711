// Follow one job over Redis pub/sub, miss nothing and see nothing twice. The same four rules as examples/pubsub.py.
//
//     npm ci && node follow.mjs job_… --redis-url redis://127.0.0.1:6379/0 --url http://127.0.0.1:8080 [--json]
//
// 1. Subscribe, then read what came before; after each new connection again.
// 2. Drop what was seen already: deltas by choice and offset, other events by their seq.
// 3. Where a seq or an offset is missing, and after a second of silence, read again.
// 4. The job is over with completed, failed, cancelled or expired, and only then.

import { parseArgs } from "node:util";
import { createClient } from "redis";

const LAST = new Set(["completed", "failed", "cancelled", "expired"]);
const SILENCE_MS = 1_000;
const PATIENCE_MS = 60_000;

// A job as it has been told so far.
class Story {
  seq = 0;
  end = null;
  offsets = new Map();
  text = "";

  // Takes what is new and drops what is not; false when something is missing in front of it.
  add(event) {
    if (event.seq > this.seq + 1) return false;
    if (event.type === "delta") {
      const have = this.offsets.get(event.choice) ?? 0;
      const end = event.offset + event.token_ids.length;
      if (event.offset !== have) return end <= have; // all of it was seen, or there is a hole
      this.offsets.set(event.choice, end);
      if (event.choice === 0) this.text += event.text;
    } else if (LAST.has(event.type)) {
      this.end = event;
    }
    this.seq = Math.max(this.seq, event.seq);
    return true;
  }
}

// The job's channel. What was heard waits here until somebody asks; `null` says that some may have been missed.
class Live {
  heard = [];
  #wake = () => {};

  async open(url, job) {
    this.client = createClient({ url });
    this.client.on("error", () => {}); // it connects anew by itself, and then says ready
    await this.client.connect();
    await this.client.subscribe(`hr:live:${job}`, (message) => this.#hear(JSON.parse(message)));
    this.client.on("ready", () => this.#hear(null)); // from the second connection on
  }

  #hear(event) {
    this.heard.push(event);
    this.#wake();
  }

  // The next event; null after that much silence, and when some may have been missed.
  async next(timeoutMs) {
    if (!this.heard.length) {
      await new Promise((resolve) => {
        const timer = setTimeout(resolve, timeoutMs);
        this.#wake = () => { clearTimeout(timer); resolve(); };
      });
    }
    return this.heard.shift() ?? null;
  }

  // Whether what was heard goes on where the story ends, so that no more history is needed.
  overlaps(story) {
    return this.heard.length > 0 && this.heard[0] !== null && this.heard[0].seq <= story.seq + 1;
  }
}

// All events so far. The connection would go on live, so a short silence is its end here.
async function* history(url, job) {
  const stop = new AbortController();
  let timer;
  const rest = () => { clearTimeout(timer); timer = setTimeout(() => stop.abort(), SILENCE_MS / 2); };
  try {
    rest();
    const response = await fetch(`${url}/v1/jobs/${job}/events`, { signal: stop.signal });
    if (response.status >= 400 && response.status < 500) throw new Refusal((await response.json()).error.message);
    if (!response.ok) return;
    let buffer = "";
    for await (const text of response.body.pipeThrough(new TextDecoderStream())) {
      rest();
      const lines = (buffer + text).split("\n");
      buffer = lines.pop();
      for (const line of lines) if (line.startsWith("data:")) yield JSON.parse(line.slice(5));
    }
  } catch (error) {
    if (error instanceof Refusal) throw error; // anything else: silence, or the gateway is away for the moment
  } finally {
    clearTimeout(timer);
    stop.abort();
  }
}

class Refusal extends Error {}

// Prints what it has not printed before, whoever tells it and how often.
class Screen {
  #printed = 0;
  #events = new Set();

  constructor(asJson) {
    this.asJson = asJson;
  }

  show(story, event) {
    if (!this.asJson) {
      process.stdout.write(story.text.slice(this.#printed));
      this.#printed = Math.max(this.#printed, story.text.length);
      return;
    }
    const key = [event.type, event.choice, event.offset ?? event.seq, event.finish_reason].join();
    if (!this.#events.has(key)) process.stdout.write(JSON.stringify(event) + "\n");
    this.#events.add(key);
  }
}

// The four rules. Gives up when neither Redis nor gateway says anything at all for a minute.
async function follow(live, read, screen) {
  let story = new Story();
  let heardAt = Date.now();
  let event = null; // after the first acknowledgement, too, something may have been missed
  while (!story.end) {
    if (event && story.add(event)) {
      screen.show(story, event);
      heardAt = Date.now();
    } else {
      story = new Story();
      for await (const past of read()) {
        story.add(past);
        screen.show(story, past);
        heardAt = Date.now();
        if (live.overlaps(story)) break;
      }
    }
    if (Date.now() - heardAt > PATIENCE_MS) throw new Refusal("Nothing was heard for a minute.");
    if (!story.end) event = await live.next(SILENCE_MS);
  }
  return story.end;
}

const { values, positionals } = parseArgs({
  allowPositionals: true,
  options: {
    "redis-url": { type: "string", default: process.env.HEADRACE_REDIS__URL ?? "redis://127.0.0.1:6379/0" },
    url: { type: "string", default: (process.env.HEADRACE_URL ?? "http://127.0.0.1:8080").split(",")[0] },
    json: { type: "boolean", default: false },
  },
});
if (positionals.length !== 1) {
  console.error("usage: node follow.mjs job_… [--redis-url URL] [--url URL] [--json]");
  process.exit(2);
}
const live = new Live();
try {
  await live.open(values["redis-url"], positionals[0]);
  const end = await follow(live, () => history(values.url, positionals[0]), new Screen(values.json));
  if (!values.json) process.stdout.write("\n");
  if (end.type !== "completed") console.error(`${end.type}: ${end.error?.message ?? ""}`);
  process.exitCode = end.type === "completed" ? 0 : 1;
} catch (error) {
  if (!(error instanceof Refusal)) throw error;
  console.error(error.message);
  process.exitCode = 1;
} finally {
  live.client?.destroy();
}
