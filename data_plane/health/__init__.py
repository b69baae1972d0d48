"""Verdicts on endpoints: Kong's health state machine, pure. The node process owns it and feeds it; workers only follow.

Workers report observations and never decide: two workers that each saw half of the failures would both stay below the
threshold.
"""

from data_plane.health.passive import PassiveFilter, Sighting
from data_plane.health.state import EndpointHealth, Event, State
from data_plane.health.verdicts import EndpointVerdict, Source, Transition, Verdicts, checking_enabled
from data_plane.health.words import Word, target_word, upstream_word

__all__ = [
    "EndpointHealth",
    "EndpointVerdict",
    "Event",
    "PassiveFilter",
    "Sighting",
    "Source",
    "State",
    "Transition",
    "Verdicts",
    "Word",
    "checking_enabled",
    "target_word",
    "upstream_word",
]
