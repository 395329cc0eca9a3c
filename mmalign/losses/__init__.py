"""How losses of elements become one number over the global batch."""
