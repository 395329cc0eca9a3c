"""For authors of modalities; the engine imports none of it."""
