"""vlmkit's models in the harnesses of others, which bring their own tasks, prompts and scores: lmms-eval (lmms.py) and VLMEvalKit
(vlmevalkit.py). Neither is installed with vlmkit."""
