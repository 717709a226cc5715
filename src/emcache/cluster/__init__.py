"""Work on several processes and machines, by Dask: what runs where, and what becomes of it."""
