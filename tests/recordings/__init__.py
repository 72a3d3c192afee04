"""Tests of recordings: format, writer, reader, export, verifier."""
