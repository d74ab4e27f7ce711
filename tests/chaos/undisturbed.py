"""What a fleet answers when nobody is disturbed, for engines whose tokens cannot be told beforehand. Kills nothing."""

import asyncio
from collections.abc import Callable, Sequence
from dataclasses import replace

from tests.chaos.customers import Customers
from tests.chaos.ground import Ground
from tests.chaos.orders import Answer, Mode, Order
from tests.chaos.several import Inside

Draw = Callable[[int, int], Sequence[Order]]


class Undisturbed:
    """The orders of a seed's wave with their answers, which a run that nobody disturbed gave before."""

    def __init__(self, ground: Ground, draw: Draw) -> None:
        self._ground = ground
        self._draw = draw
        self._known: dict[tuple[int, int], tuple[Order, ...]] = {}

    def __call__(self, seed: int, number: int) -> Sequence[Order]:
        return self._known[seed, number]

    async def learn(self, seed: int, number: int) -> None:
        """Run a wave, on a fleet that is whole."""
        if (seed, number) in self._known:
            return
        ordered = self._draw(seed, number)
        customers = Customers(self._ground.urls, Inside(self._ground.queue).submit)
        try:
            asked = (customers.serve(_patiently(order)) for order in ordered)
            receipts = await asyncio.gather(*asked)
        finally:
            await customers.close()
        kept = self._ground.reader.snapshot(()).jobs
        learnt = []
        for order, receipt in zip(ordered, receipts, strict=True):
            assert not receipt.trouble, receipt.trouble
            found = kept[receipt.job_id]
            assert found.result is not None, f"{receipt.job_id} ended as {found.job.state}"
            answers = tuple(Answer(each.token_ids, each.finish_reason, each.logprobs) for each in found.result)
            tokens = len(found.job.request.prompt_ids) if found.job.usage is None else found.job.usage.prompt_tokens
            learnt.append(replace(order, answers=answers, prompt_tokens=tokens))
        self._known[seed, number] = tuple(learnt)
        self._ground.reader.forget()


def _patiently(order: Order) -> Order:
    """The same work for somebody who asks once and waits for the end."""
    return replace(order, mode=Mode.POLL, twice=False, key=f"{order.key}-before")
