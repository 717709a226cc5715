"""The report: everything a workspace knows, as one page that needs no network."""
