"""What a proxy does to the bytes that pass through it, as a value. Knows no socket."""

from dataclasses import dataclass
from random import Random


@dataclass(frozen=True, slots=True)
class Conditions:
    """How a line is. `up` is from client to server, `down` the server's answers.

    - `delay_up_s`, `delay_down_s`: seconds that each byte is late.
    - `bytes_per_s`: how fast each connection is, each way.
    - `stalled`: nothing arrives, and nothing is lost: all of it comes once the line is well.
    - `deaf_up`, `deaf_down`: what comes is swallowed. A connection that has lost a byte so never recovers, as one
      whose peer is gone; both together are a line that is half-open.
    - `refusing`: a new connection is reset at once.
    - `rubbish`, `truncated`: the share of the server's answers that have bytes of nonsense in front of them, or end in
      the middle, together with their connection.
    - `cut_after`: bytes of answers after which a connection is closed.
    """

    delay_up_s: float = 0.0
    delay_down_s: float = 0.0
    bytes_per_s: float | None = None
    stalled: bool = False
    deaf_up: bool = False
    deaf_down: bool = False
    refusing: bool = False
    rubbish: float = 0.0
    truncated: float = 0.0
    cut_after: int | None = None


WELL = Conditions()
HALF_OPEN = Conditions(deaf_up=True, deaf_down=True)
STALLED = Conditions(stalled=True)
REFUSING = Conditions(refusing=True)


@dataclass(frozen=True, slots=True)
class Mangled:
    """Bytes as they go on, and whether the connection ends behind them."""

    data: bytes
    ends: bool = False


def mangle(answer: bytes, conditions: Conditions, dice: Random) -> Mangled:
    """One answer of the server under these conditions. Rubbish is no RESP: no type of reply begins with its bytes."""
    if conditions.truncated and dice.random() < conditions.truncated:
        return Mangled(answer[: dice.randrange(len(answer))], ends=True)
    if conditions.rubbish and dice.random() < conditions.rubbish:
        return Mangled(bytes(dice.randrange(0x80, 0x100) for _ in range(dice.randrange(1, 32))) + answer)
    return Mangled(answer)
