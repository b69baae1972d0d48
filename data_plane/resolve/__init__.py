"""Names to addresses: our own resolver, its cache rules, and the answers the balancer reads.

Lives in the node process only. `system` reads the host's files, `client` speaks to nameservers, `resolver` decides what
to ask and in which order, `cache` decides how long an answer is good for.
"""
