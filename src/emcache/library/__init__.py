"""What scripts and notebooks use: the names that ``emcache`` itself offers.

Everything here is thin: an object or a function that calls the rooms below and hides their options
behind defaults. Nothing below imports it.
"""
