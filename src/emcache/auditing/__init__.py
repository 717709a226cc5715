"""The audit: do the masks belong to these slices, and is the rest of the data in order?

A check of a dataset belongs here. It reads pixels and masks, and needs no torch.
"""
