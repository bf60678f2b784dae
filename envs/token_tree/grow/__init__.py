"""Growing token trees: a primary model and teachers populate them."""
