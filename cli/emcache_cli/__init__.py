"""The emcache command line."""
