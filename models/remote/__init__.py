"""Models behind a server: OpenAI-compatible endpoints, and what it takes to trust them."""
