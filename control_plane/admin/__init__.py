"""HTTP in, HTTP out: Kong's Admin API and what is ours beyond it. No rules about entities live here.

server      sockets, limits of HTTP             api          guard -> path -> handler -> answer
messages    a call, an answer                   table        paths -> handlers
collections flat, nested, parents; by schema    targets      what is special about targets
writes      commit, version, wait for nodes     errors       domain error -> status
bodies, forms, paging, preferences              what a request says
files, history, nodes, tags, information, planned            the other paths
"""
