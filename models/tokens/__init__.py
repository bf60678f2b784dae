"""From text to tokens and back: tokenizers, chat templates, and the boundary between two vocabularies."""
