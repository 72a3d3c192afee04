"""The access context: requests, approvals, grants and the policy decision point."""
