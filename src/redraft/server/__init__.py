"""OpenAI's API over HTTP, with drafts that settle, and a page to watch them."""
