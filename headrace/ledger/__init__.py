"""An outer durable queue beside Redis: what was accepted through it survives the loss of everything that Redis held."""
