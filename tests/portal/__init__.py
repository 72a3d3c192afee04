"""Tests of the pages, through Django's request cycle or a real browser."""
