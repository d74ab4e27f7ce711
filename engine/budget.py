"""What an engine could still take, in tokens and requests; a value, which knows no pages by name."""

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Budget:
    """KV cache in tokens, and how many more requests may be added without waiting for another to end.

    free = (pages that no request holds, those of the prefix cache included
            - pages that requests, running or waiting, still need for the tokens they know) x page size

    What they will yet generate is not taken off, nor added what waiting ones may find in the prefix cache.
    """

    total_tokens: int
    free_tokens: int
    free_seqs: int
