"""Pictures and reports made from the engine's own tables."""
