"""The vault context: sealed secrets, the SSH authority, leases and receipts."""
