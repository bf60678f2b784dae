"""A plug-in whose author has not finished it."""

this.fails(when="imported")  # noqa: F821
