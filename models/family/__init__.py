"""The bundled tiny family: who is in it, how it is forged, and where it is kept."""
