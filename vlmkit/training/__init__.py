"""Training: stages as data, one loop for all of them, a state that survives anything, what is logged and shown.

The parts are imported from their files (`from vlmkit.training.stage import Stage`), so that describing a run loads no torch.
"""
