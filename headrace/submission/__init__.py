"""The one road in: whatever asks for tokens becomes a queued job here. Knows no HTTP and no engine."""
