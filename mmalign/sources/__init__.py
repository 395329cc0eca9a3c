"""Where records come from: files, formats, what happens to bad rows, the order of training."""
