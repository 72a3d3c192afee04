"""The sessions context: live and ended sessions."""
