"""What a fleet answers when nobody is disturbed, for engines whose tokens cannot be told beforehand. Kills nothing."""

import asyncio
from collections.abc import Callable, Sequence
from dataclasses import replace

from tests.chaos.customers import Customers
from tests.chaos.ground import Ground
from tests.chaos.orders import Answer, Mode, Order
from tests.chaos.several import Inside


class Undisturbed:
    """The orders of a seed with their answers, which a run that nobody disturbed gave before."""

    def __init__(self, draw: Callable[[int], Sequence[Order]]) -> None:
        self._draw = draw
        self._known: dict[int, tuple[Order, ...]] = {}

    def wave(self, seed: int, number: int) -> Sequence[Order]:
        """Each wave of a round orders the same again."""
        return [replace(order, key=f"{order.key}-{number}") for order in self._known[seed]]

    async def learn(self, ground: Ground, seed: int) -> None:
        """Run the orders of a seed, on a fleet that is whole."""
        if seed in self._known:
            return
        ordered = self._draw(seed)
        customers = Customers(ground.urls, Inside(ground.queue).submit)
        try:
            asked = (customers.serve(_patiently(order)) for order in ordered)
            receipts = await asyncio.gather(*asked)
        finally:
            await customers.close()
        kept = ground.reader.snapshot(()).jobs
        learnt = []
        for order, receipt in zip(ordered, receipts, strict=True):
            assert not receipt.trouble, receipt.trouble
            found = kept[receipt.job_id]
            assert found.result is not None, f"{receipt.job_id} ended as {found.job.state}"
            answers = tuple(Answer(each.token_ids, each.finish_reason, each.logprobs) for each in found.result)
            tokens = len(found.job.request.prompt_ids) if found.job.usage is None else found.job.usage.prompt_tokens
            learnt.append(replace(order, answers=answers, prompt_tokens=tokens))
        self._known[seed] = tuple(learnt)
        ground.reader.forget()


def _patiently(order: Order) -> Order:
    """The same work for somebody who asks once and waits for the end."""
    return replace(order, mode=Mode.POLL, twice=False, key=f"{order.key}-before")
