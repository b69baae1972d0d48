"""Telling the nodes: who is there, what each runs by its own word, and the conversation that moves them on.

`fleet.py` is what the rest of the control plane uses. Inside, `publisher.py` turns commits into snapshots, `server.py`
speaks gRPC, `session.py` decides for one node, `nodes.py` remembers them all and `waiting.py` waits for them.
"""
