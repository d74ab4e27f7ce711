"""What the fleet says of itself: logs and metrics. Knows names and formats, not the facts."""
