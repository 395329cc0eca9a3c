"""From YAML to checked values, or one readable error."""
