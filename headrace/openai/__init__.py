"""OpenAI's shapes at the edge: bodies in, replies out. Knows no HTTP server, no queue and no model."""
