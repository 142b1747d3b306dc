"""From labelled images on disk to examples in splits."""
