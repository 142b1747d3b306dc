"""What leaves a training: SavedModels with their signatures, LiteRT models, TensorFlow Hub modules."""
