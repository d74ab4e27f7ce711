"""What the measurements of the gateway have in common: the processes that are measured and those that load them."""
