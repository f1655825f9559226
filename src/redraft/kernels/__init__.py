"""One operation per file: the torch reference first, faster forms behind the same function. No policy here."""
