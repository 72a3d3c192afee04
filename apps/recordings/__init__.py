"""The recordings context: writing, sealing, reading and verifying recordings."""
