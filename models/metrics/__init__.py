"""How predictions are scored: confusion matrices, boundaries, calibration, confidence intervals."""
