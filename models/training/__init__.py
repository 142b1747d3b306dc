"""How a network is trained: the loop, its step, losses, optimizers, checkpoints."""
