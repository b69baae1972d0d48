"""Short turns on a processor for the workers: requests are answered before a configuration is applied.

Linux lets a thread say how long its turns may be (since 6.12, as `sched_runtime` of `sched_setattr`). One that asks
for short turns gets its next one sooner. Its share of the processor stays what it is, so it starves nobody, and no
privilege is needed. A request takes a tenth of a millisecond and somebody waits for it; what a node process, or a
control plane on the same machine, does for a change takes some milliseconds and goes on right after. A nice value
would be the other way, but it counts only within one session or container, and a worker could not take back what it
inherits.

Older kernels, other systems and sandboxes that refuse the call change nothing: turns are as they were.
"""

from __future__ import annotations

import ctypes
import os
import platform
import struct

TURN_NS = 100_000
"""The shortest that the kernel takes."""

_SCHED_SETATTR = {"x86_64": 314, "aarch64": 274, "riscv64": 274}
# size, policy, flags, nice, priority, runtime, deadline, period: the first version of struct sched_attr
_ATTRIBUTES = struct.Struct("=IIQiIQQQ")


def ask_for_short_turns() -> bool:
    """For this thread, and for those that it starts from now on; whether the system took it.

    Nice value and policy stay. A thread of another policy than the usual one was given that by somebody on purpose.
    """
    number = _SCHED_SETATTR.get(platform.machine())
    if number is None or not hasattr(os, "sched_getscheduler") or os.sched_getscheduler(0) != os.SCHED_OTHER:
        return False
    nice = os.getpriority(os.PRIO_PROCESS, 0)
    asked = _ATTRIBUTES.pack(_ATTRIBUTES.size, os.SCHED_OTHER, 0, nice, 0, TURN_NS, 0, 0)
    failed: int = ctypes.CDLL(None).syscall(number, 0, asked, 0)
    return not failed
