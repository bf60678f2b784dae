"""Tree search whose trees are torch tensors, beside an evaluator on the same device."""
