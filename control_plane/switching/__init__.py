"""The operator's verbs: plan, switch, undo, and the history of both.

A switch is a rollout (`control_plane/fleet`) that repoints services, with a check before it and the proof after it. All
that makes it safe on many nodes is the rollout's; here is what an operator asks of it. `admin/` is the only caller.
"""
