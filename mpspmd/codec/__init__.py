"""How Python objects become messages."""
