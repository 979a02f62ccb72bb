"""Images for training and evaluation: sources, crops, resizing, degradations and downloads."""
