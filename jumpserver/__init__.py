"""Composition root: settings, URLs, processes. Nothing below imports it."""
