"""`predict`: masks and overlays for given images, by the model that is being served."""
