"""Planning: how searches see worlds, and episodes whose every move is searched."""
