"""What a labelled image is: layouts on disk, masks and label maps, preprocessing, augmentation, batches.

Nothing here imports TFX, Beam or KFP.
"""
