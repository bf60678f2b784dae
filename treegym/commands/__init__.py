"""The commands of `treegym`, one module each."""
