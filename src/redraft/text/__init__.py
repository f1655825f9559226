"""Tokens, chat turns and replies as text. Never imports torch."""
