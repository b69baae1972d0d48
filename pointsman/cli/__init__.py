"""The operator's commands: a client of the control plane's public Admin API, and nothing else.

`main.py` puts the commands together; each group of commands is a module; `client.py` speaks HTTP; `output.py` prints.
Data goes to stdout, messages and errors to stderr. Nothing heavy is imported before a command needs it, because
`pointsman --help` has to answer at once.
"""
