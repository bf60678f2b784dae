"""A small batching server of language models, speaking the OpenAI-compatible protocol."""
