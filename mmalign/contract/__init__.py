"""What plugins and engine agree on: specs, base classes, values, names of quantities."""
