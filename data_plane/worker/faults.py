"""Why a worker refuses a config, as data: collected while it builds, sent to the node process."""

from __future__ import annotations

from dataclasses import dataclass

FAULTS_MAX = 100
"""An operator reads the first few; a config with 100,000 faults must not become a message of 100 MiB."""
MESSAGE_CHARACTERS_MAX = 1000

UNKNOWN_ENTITY = "UNKNOWN_ENTITY"
UNDECODABLE = "UNDECODABLE"
BAD_VALUE = "BAD_VALUE"
BAD_REGEX = "BAD_REGEX"
BAD_CERTIFICATE = "BAD_CERTIFICATE"
DANGLING_REFERENCE = "DANGLING_REFERENCE"
DUPLICATE_NAME = "DUPLICATE_NAME"
OUT_OF_STEP = "OUT_OF_STEP"
INTERNAL = "INTERNAL"


@dataclass(frozen=True, slots=True)
class BuildFault:
    """One reason, naming the entity and the field at fault; `code` is stable. Never holds an entity's body."""

    code: str
    message: str
    collection: str = ""
    entity_id: str = ""
    entity_name: str = ""
    field: str = ""


class BuildFaults:
    """The reasons found so far, bounded."""

    def __init__(self) -> None:
        self.found: list[BuildFault] = []
        self.dropped = 0

    def add(self, fault: BuildFault) -> None:
        if len(self.found) >= FAULTS_MAX:
            self.dropped += 1
            return
        self.found.append(fault)

    def __bool__(self) -> bool:
        return bool(self.found)
