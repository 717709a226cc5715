"""How far apart two sets of slices lie in a backbone's feature space."""
