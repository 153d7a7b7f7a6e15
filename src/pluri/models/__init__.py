"""One Transformer built from small blocks, its presets and its heads."""
