"""The audit context: the ledger of everything that happened."""
