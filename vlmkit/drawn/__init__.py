"""A world of pictures that are drawn from numbers, in which a small model learns to see in minutes on a CPU, without any download.

    glyphs, textures, words   what is drawn
    render                    a picture, its page of characters, what can be asked about it
    pictures                  as shards, as batches of the warm-ups, as held-out tasks
    warm_up, stages           how a small model learns from them

`recipes/univa/train.py` and `vlmkit compare` train on it.
"""
