"""What a job is, in names and fields, for both sides of the queue. Knows no Redis, no HTTP and no engine."""
