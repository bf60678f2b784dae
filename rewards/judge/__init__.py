"""A language model's opinion of an answer: the term, what it asks, and how the answer is read."""
