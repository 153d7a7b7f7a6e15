"""Model folders and training checkpoints: written aside and renamed, checked by hash when read."""
