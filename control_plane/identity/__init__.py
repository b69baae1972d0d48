"""Who may do what on this control plane: operators' tokens, their roles, and how much of it at a time."""
