"""How many workers a lane gets: signals from the store, one pure decision, a scaler that acts. Knows no HTTP."""
