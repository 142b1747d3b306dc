"""`predict`: masks and overlays for somebody's images, by the model that is being served."""
