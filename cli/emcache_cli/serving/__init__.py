"""The workspace in a browser of this machine: read-only, for whoever has the address."""
