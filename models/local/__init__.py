"""Models in this process: transformers, vLLM, decoding, caches."""
