"""The service: OpenAI's HTTP interface to models on this machine, and its page."""
