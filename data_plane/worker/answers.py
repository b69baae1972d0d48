"""The resolver answers a worker has been told, as the balancers read them."""

from __future__ import annotations

from collections.abc import Iterable

from data_plane.resolve.answers import Answer, Record
from pointsman.wire.v1 import worker_pb2 as wire


def decode_answers(names: wire.Names) -> list[Answer]:
    """A `Names` message as plain values."""
    return [
        Answer(
            told.name,
            tuple(Record(record.ip, record.port, record.weight, record.name) for record in told.records),
            told.error,
            told.unsteady,
        )
        for told in names.answers
    ]


class Answers:
    """What each name resolves to now; called by the balancers with a name as configured."""

    def __init__(self) -> None:
        self._by_name: dict[str, Answer] = {}

    def __call__(self, name: str) -> Answer | None:
        return self._by_name.get(name)

    def learn(self, answers: Iterable[Answer]) -> list[str]:
        """Take answers in; returns the names whose answer is new or differs."""
        changed: list[str] = []
        for answer in answers:
            if self._by_name.get(answer.name) != answer:
                self._by_name[answer.name] = answer
                changed.append(answer.name)
        return changed

    def forget_all_but(self, names: Iterable[str]) -> None:
        """Drop what nothing uses; the node process tells again what a later config needs."""
        kept = set(names)
        for name in [name for name in self._by_name if name not in kept]:
            del self._by_name[name]
