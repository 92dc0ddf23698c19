"""Readers of what others publish: rules, signatures and lists of hashes."""
