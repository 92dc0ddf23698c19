"""Definitions: imported, tried, signed, and given to some devices before all of them."""
