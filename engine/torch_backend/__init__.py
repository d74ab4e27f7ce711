"""The portable backend: any model in plain torch, exact or as a textbook writes it, on any device that torch knows."""
