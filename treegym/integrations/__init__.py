"""Doors into what people already run: one module per library, each importing it when it is used."""
