"""Where an episode ends: detectors and their composition."""
