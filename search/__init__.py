"""Planning: tree search over any world that implements `Simulator`."""
