"""One serving process of a node: its start, its channel to the node process, its tables, its listeners, its end.

The node process starts workers by exec and tells them what to serve; a worker decides nothing about configuration, it
only builds, swaps and reports. It never imports grpc and never looks up a name.
"""
