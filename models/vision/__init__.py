"""Models that see: reading pictures, two towers that compare them with texts, and a captioner."""
