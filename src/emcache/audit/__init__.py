"""The audit: do the masks belong to these slices, and is the rest of the data sound?"""
