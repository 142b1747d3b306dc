"""The formats in which a trained network is exported: SavedModel with its signatures, LiteRT, TensorFlow Hub."""
