"""What is kept and where: keys, records, journals, cards. Knows the layout of the store, not who may change what."""
