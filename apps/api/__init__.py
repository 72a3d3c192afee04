"""The JSON interface, version 1, under /api/v1: live sessions and their control."""
