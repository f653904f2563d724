"""Training: labelled cases to network weights."""
