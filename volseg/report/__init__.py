"""What people look at: a picture of each case."""
