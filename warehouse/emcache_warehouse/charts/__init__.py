"""Charts: from rows of a query to an ``altair.Chart``, and from that to a file."""
