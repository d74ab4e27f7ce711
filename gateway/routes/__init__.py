"""One module per family of routes. Each knows HTTP on one side and the gateway's services on the other."""
