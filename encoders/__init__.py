"""From behaviour rows to sessions, texts and language-model embeddings."""
