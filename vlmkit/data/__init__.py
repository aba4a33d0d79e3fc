"""Training data, from what lies on disk to batches.

    sample, rejections   what every room speaks of: a sample, and what is counted in place of one that cannot be used
    packing              which samples share a row, for mixture and looking
    reading/             rows of annotation files and what else readers are made of
    formats/             readers, one file a published format
    filters/             which samples are wanted, one file a kind
    mixes/               mixtures that papers name: sources, filters, proportions
    shards/              samples packed into tars that any sample can be read from
    mixture/             several sources as batches: in which order, packed, decoded ahead, continued from any step
    looking/             counts, charts and pictures of what was packed

Imports between rooms run one way: formats imports from reading, looking from shards, and no other room from any.
"""
