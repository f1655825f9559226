"""Adapters: small low-rank changes of a frozen model, through weights of any form, in files that others load."""
