"""Pages: load, decide, call one operation, render or redirect."""
