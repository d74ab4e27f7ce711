"""Jobs on one side, the engine on the other. Knows leases and Celery; serves no HTTP."""
