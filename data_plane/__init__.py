"""A node: its node process, and the workers that serve. `BUILD` says which build of the hot path they run."""

from data_plane import compiled

BUILD = compiled.choose()
