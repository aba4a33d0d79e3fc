"""Controlled comparison: models that differ in a part, trained alike, with several seeds.

candidates   what is compared: one model with parts exchanged
world        what all learn from, and how they are asked: drawn pictures, or one's own shards
trial        one candidate with one seed and one budget, in a process of its own
study        all trials in a directory, continued where they were stopped
progress     what is at work, time taken, time left
findings     means, spreads, what is a difference and what is not, whether small budgets tell the order of large ones
report       the table, and a page with its plots
"""
