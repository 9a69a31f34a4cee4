"""nmt_ls: train Flax Transformers for translation and measure what label smoothing does."""

__version__ = "0.1.0"
