"""Export to GGUF, the engine that runs it, and what is measured in it."""
