"""Beyond one machine: the same work as jobs on a Ray cluster."""
