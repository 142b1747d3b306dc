"""DeepLabV3+: backbones, heads, and what they cost."""
