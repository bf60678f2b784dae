"""The bundled reward terms, one module each; rewards/registry.py names them."""
