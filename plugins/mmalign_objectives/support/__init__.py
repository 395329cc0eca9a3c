"""What several objectives share: links, ratios, shapes, and quantities read from records."""
