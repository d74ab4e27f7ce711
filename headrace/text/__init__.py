"""Text to token ids and back. The only home of `tokenizers` and `jinja2`; knows no job, no store and no HTTP."""
