"""What clouds say before they take a machine away: asked, understood, passed on as a drain."""
