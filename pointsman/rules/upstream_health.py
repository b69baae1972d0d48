"""When an upstream as a whole may be used; nodes act by it, and the control plane says it."""

from __future__ import annotations


def is_usable(available_weight: int, total_weight: int, threshold: float) -> bool:
    """Tell whether more than `threshold` percent of the weight is available.

    Kong compares strictly, so that at 100 nothing would ever do; there, all of the weight is enough (Kong Enterprise
    3.13 and later do the same).
    """
    if total_weight <= 0 or available_weight <= 0:
        return False
    percent = available_weight / total_weight * 100
    return percent >= threshold if threshold >= 100 else percent > threshold


UNSTEADY = "ttl=0, virtual SRV"
"""Kong's words for a name whose answers are good for one moment: it is shown as one address, which is the name."""
