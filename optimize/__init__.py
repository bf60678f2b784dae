"""Making a PyTorch module faster: candidates, measurements, and the choice among them."""
