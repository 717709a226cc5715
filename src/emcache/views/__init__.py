"""What people look at: slices with their tokens, masks, predictions and mistakes."""
