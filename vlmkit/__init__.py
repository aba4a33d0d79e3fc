"""vlmkit."""
