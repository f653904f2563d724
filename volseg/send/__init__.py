"""What was made, sent to where it belongs: C-STORE and STOW-RS, an instance at a time, each kept as accepted."""
