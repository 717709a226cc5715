"""Looking after the machine and the workspace: what is well, what is not, and what fixes it."""
