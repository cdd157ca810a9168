"""How often the bundled model is right, measured through the daemon."""
