"""The gateway context: the SSH data path, the policy enforcement point."""
