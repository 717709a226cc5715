"""The audit: do the masks belong to these slices, and is the rest of the data sound?"""

from emcache.audit.findings import Audit, Check, Verdict

__all__ = ["Audit", "Check", "Verdict"]
