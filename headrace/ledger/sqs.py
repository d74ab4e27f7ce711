"""A ledger on Amazon SQS, or on what speaks like it. Knows boto3 and its errors; makes no queue unless it is told to.

A message is lent for a visibility timeout, twelve hours in all. An old receipt may still work when the message is
another's, so nothing is done with a receipt whose time is over: whoever calls keeps to the terms.

Source: Amazon SQS API Reference, ReceiveMessage, ChangeMessageVisibilityBatch, DeleteMessageBatch; quotas of messages.
"""

import json
import math
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from typing import Any
from urllib.parse import urlsplit

import boto3
import structlog
from botocore.config import Config
from botocore.exceptions import BotoCoreError, ClientError

from headrace.contract.errors import LedgerUnavailable, SetupError
from headrace.ledger.base import Delivery, Terms
from headrace.settings import LedgerSettings, Settings

HAND_OVER_S = 11 * 3600.0
"""An hour before a message's twelve are over."""
LEAST_RECEIVES = 100
"""Of a redrive policy. Each hand-over and each feeder that starts anew receives a message once more."""

_BATCH = 10
_CONNECTIONS = 32
_THREADS = 8
_LONGEST_POLL_S = 20
_LONGEST_KEPT_S = 14 * 24 * 3600
_SHORT_KEPT_S = 24 * 3600
_ABSENT = ("QueueDoesNotExist", "NonExistentQueue")

log = structlog.get_logger(__name__)


class SqsLedger:
    """A `Ledger` on one standard queue. Raises SetupError when boto3 itself cannot be used as configured."""

    def __init__(self, name: str, settings: LedgerSettings, *, account: str = "") -> None:
        self._name = name
        self._owner = {"QueueOwnerAWSAccountId": account} if account else {}
        self._settings = settings
        self._found_url = ""
        self._threads = ThreadPoolExecutor(_THREADS, thread_name_prefix="sqs")
        lease_s = float(settings.visibility_s)
        self.terms = Terms(lease_s, lease_s / 3, settings.hand_over_s or HAND_OVER_S)
        try:
            self._client: Any = boto3.session.Session().client(
                "sqs",
                endpoint_url=settings.endpoint_url or None,
                config=Config(
                    connect_timeout=min(settings.timeout_s, 5.0),
                    # A poll is silent for as long as it waits.
                    read_timeout=settings.timeout_s + 1.0,
                    retries={"total_max_attempts": 2, "mode": "standard"},
                    max_pool_connections=_CONNECTIONS,
                ),
            )
        except (BotoCoreError, ValueError) as error:
            raise SetupError(
                f"SQS cannot be used: {str(error).rstrip('.')}.",
                next_step="Check ledger.endpoint_url and boto3's own configuration (AWS_PROFILE, AWS_REGION).",
            ) from error

    def check(self) -> tuple[str, ...]:
        if self._name.endswith(".fifo"):
            raise SetupError(
                f"{self._name} is a FIFO queue: it holds a message back while an earlier one is worked on.",
                next_step="Use a standard queue; the order of jobs is the fleet's own.",
            )
        try:
            url = self._url()
        except LedgerUnavailable as error:
            if not _is_absent(error.__cause__):
                raise
            url = self._created()
        with self._explained():
            answer = self._client.get_queue_attributes(QueueUrl=url, AttributeNames=["All"])
        return self._judge(answer["Attributes"])

    def publish(self, body: bytes) -> None:
        with self._explained():
            self._client.send_message(QueueUrl=self._url(), MessageBody=body.decode("ascii"))

    def receive(self, most: int, wait_s: float) -> list[Delivery]:
        if most < 1:
            return []
        with self._explained():
            url, began = self._url(), time.monotonic()
            answer = self._client.receive_message(
                QueueUrl=url,
                MaxNumberOfMessages=min(most, _BATCH),
                WaitTimeSeconds=min(math.ceil(wait_s), _LONGEST_POLL_S),
                VisibilityTimeout=self._settings.visibility_s,
                AttributeNames=["ApproximateReceiveCount"],
            )
        return [
            Delivery(
                message["Body"].encode(),
                message["ReceiptHandle"],
                began,
                int(message.get("Attributes", {}).get("ApproximateReceiveCount", 1)),
            )
            for message in answer.get("Messages", ())
        ]

    def extend(self, deliveries: Sequence[Delivery]) -> list[Delivery]:
        return self._change(deliveries, self._settings.visibility_s)

    def release(self, deliveries: Sequence[Delivery]) -> None:
        self._change(deliveries, 0)

    def ack(self, deliveries: Sequence[Delivery]) -> list[Delivery]:
        def delete(batch: Sequence[Delivery]) -> list[Delivery]:
            entries = [{"Id": str(i), "ReceiptHandle": each.receipt} for i, each in enumerate(batch)]
            with self._explained():
                answer = self._client.delete_message_batch(QueueUrl=self._url(), Entries=entries)
            return self._refused(answer, batch, "ack")

        return self._in_batches(delete, deliveries)

    def close(self) -> None:
        self._threads.shutdown(wait=False, cancel_futures=True)
        self._client.close()

    def _change(self, deliveries: Sequence[Delivery], visibility_s: int) -> list[Delivery]:
        def change(batch: Sequence[Delivery]) -> list[Delivery]:
            entries = [
                {"Id": str(i), "ReceiptHandle": each.receipt, "VisibilityTimeout": visibility_s}
                for i, each in enumerate(batch)
            ]
            with self._explained():
                answer = self._client.change_message_visibility_batch(QueueUrl=self._url(), Entries=entries)
            return self._refused(answer, batch, "extend" if visibility_s else "release")

        return self._in_batches(change, deliveries)

    def _in_batches(
        self, call: Callable[[Sequence[Delivery]], list[Delivery]], deliveries: Sequence[Delivery]
    ) -> list[Delivery]:
        """Several batches at once: who is asked to stop has a second for a thousand messages."""
        batches = [deliveries[start : start + _BATCH] for start in range(0, len(deliveries), _BATCH)]
        if len(batches) < 2:
            return [lost for batch in batches for lost in call(batch)]
        return [lost for found in self._threads.map(call, batches) for lost in found]

    def _refused(self, answer: Mapping[str, Any], batch: Sequence[Delivery], what: str) -> list[Delivery]:
        """Those whose receipt is stale. What failed for a reason of the server's own is not lost: it is asked again."""
        lost = []
        for failed in answer.get("Failed", ()):
            if not failed.get("SenderFault", True):
                raise LedgerUnavailable(f"SQS could not {what} a message: {failed.get('Message') or failed['Code']}.")
            lost.append(batch[int(failed["Id"])])
            log.info("ledger receipt is stale", ledger="sqs", asked=what, reason=failed.get("Code"))
        return lost

    def _url(self) -> str:
        if not self._found_url:
            with self._explained():
                self._found_url = self._client.get_queue_url(QueueName=self._name, **self._owner)["QueueUrl"]
        return self._found_url

    def _created(self) -> str:
        if not self._settings.create:
            raise SetupError(
                f"There is no SQS queue {self._name!r} in this region and account.",
                next_step="Make it (docs/08-ledgers.md), or set ledger.create.",
                param="ledger.create",
            )
        with self._explained():
            answer = self._client.create_queue(
                QueueName=self._name, Attributes={"MessageRetentionPeriod": str(_LONGEST_KEPT_S)}
            )
        self._found_url = answer["QueueUrl"]
        return self._found_url

    def _judge(self, attributes: Mapping[str, str]) -> tuple[str, ...]:
        redrive = json.loads(attributes.get("RedrivePolicy") or "{}")
        receives = int(redrive.get("maxReceiveCount", LEAST_RECEIVES))
        if receives < LEAST_RECEIVES:
            raise SetupError(
                f"The redrive policy of {self._name} moves a message away after {receives} receives: its job may live.",
                next_step=f"Set maxReceiveCount to {LEAST_RECEIVES} or more: which job is given up is decided here.",
            )
        kept_s = int(attributes.get("MessageRetentionPeriod", _LONGEST_KEPT_S))
        if kept_s > self._settings.retention_s:
            raise SetupError(
                f"{self._name} keeps messages for {kept_s} s, ledger.retention_s knows finished jobs for"
                f" {self._settings.retention_s} s.",
                next_step="Raise ledger.retention_s, or a message that comes late is run again.",
            )
        if kept_s < _SHORT_KEPT_S:
            return (f"{self._name} drops messages after {kept_s} s, whether their jobs have ended or not.",)
        return ()

    @contextmanager
    def _explained(self) -> Iterator[None]:
        try:
            yield
        except ClientError as error:
            told = error.response.get("Error", {})
            if _is_absent(error):
                self._found_url = ""  # made anew, it may have another
            raise self._unavailable(f"{told.get('Code', '')} {told.get('Message', '')}".strip()) from error
        except (BotoCoreError, OSError) as error:
            raise self._unavailable(str(error) or type(error).__name__) from error

    def _unavailable(self, reason: str) -> LedgerUnavailable:
        return LedgerUnavailable(
            f"The SQS queue {self._name} cannot be used: {reason.rstrip('.')}.",
            next_step="Check that it is there, its rights, the credentials, the region and ledger.endpoint_url.",
        )


def open_ledger(settings: Settings) -> SqsLedger:
    """`sqs://<queue>`, or `sqs://<account>/<queue>` for another account's. Raises SetupError."""
    url = urlsplit(settings.ledger.url)
    account, name = ("", url.netloc) if url.path in ("", "/") else (url.netloc, url.path.strip("/"))
    if not name or "/" in name or url.query:
        raise SetupError(
            f"{settings.ledger.url!r} names no SQS queue.",
            next_step="Give sqs://<queue>, or sqs://<account>/<queue>; the region comes from AWS_REGION.",
            param="ledger.url",
        )
    return SqsLedger(name, settings.ledger, account=account)


def _is_absent(error: BaseException | None) -> bool:
    if not isinstance(error, ClientError):
        return False
    return str(error.response.get("Error", {}).get("Code", "")).endswith(_ABSENT)
