"""From names in a configuration to bound parts and a plan of quantities, before anything heavy loads."""
