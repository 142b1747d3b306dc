"""`predict`: masks and overlays for somebody's pictures, by the model that is being served."""
