"""Speaking: language-model back ends, embeddings, the bundled tiny family."""
