"""Labelled images: layouts on disk, masks and label maps, preprocessing, augmentation, batches.

Nothing here imports TFX, Beam or KFP.
"""
