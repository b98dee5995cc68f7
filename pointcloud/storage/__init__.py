"""Files at local paths and URIs: read, written whole, locked, and remembered in a ledger."""
