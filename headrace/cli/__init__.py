"""The `headrace` command: data on standard output, progress on standard error. Knows arguments, not the work."""
