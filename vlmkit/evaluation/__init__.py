"""Evaluation: metrics as pure functions, and tasks that ask a model with the right picture and with a wrong one."""
