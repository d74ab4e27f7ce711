"""What somebody asks for, before a model has been looked at. Knows neither where it was asked nor how it will run."""

from collections.abc import Mapping
from dataclasses import dataclass, field

from headrace.contract.generation import Sampling
from headrace.contract.job import JobClass, Kind


@dataclass(frozen=True, slots=True)
class Turn:
    """One message of a conversation."""

    role: str
    content: str


@dataclass(frozen=True, slots=True)
class Intent:
    """A request for tokens whose values are all in range.

    Of `messages` and `prompt` the one that `kind` names is filled; a prompt is text or token ids. `logprobs` counts the
    alternatives wanted for each token, and with `echo` for those of the prompt too; None means no log probabilities.
    `fallback_model`, where there is one, is run when every retry of `model` has failed before its first token.
    Any other None means that submit decides: a seed is drawn, `max_tokens` is what the model has room for.
    """

    kind: Kind
    model: str
    job_class: JobClass
    messages: tuple[Turn, ...] = ()
    prompt: str | tuple[int, ...] = ""
    max_tokens: int | None = None
    stop: tuple[str, ...] = ()
    logprobs: int | None = None
    echo: bool = False
    seed: int | None = None
    temperature: float = 1.0
    top_p: float = 1.0
    top_k: int = 0
    min_p: float = 0.0
    frequency_penalty: float = 0.0
    presence_penalty: float = 0.0
    repetition_penalty: float = 1.0
    deadline_ms: int | None = None
    fallback_model: str = ""
    user: str = ""
    metadata: Mapping[str, str] = field(default_factory=dict)

    @property
    def source(self) -> str:
        """The field that the prompt came from, as errors name it."""
        return "messages" if self.kind is Kind.CHAT else "prompt"

    def sampling(self, seed: int) -> Sampling:
        return Sampling(
            seed=seed,
            temperature=self.temperature,
            top_p=self.top_p,
            top_k=self.top_k,
            min_p=self.min_p,
            frequency_penalty=self.frequency_penalty,
            presence_penalty=self.presence_penalty,
            repetition_penalty=self.repetition_penalty,
        )
