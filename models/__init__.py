"""DeepLabV3+: the network, its losses and metrics, training and export. No TFX, no Beam."""
