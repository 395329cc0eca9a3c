"""What each objective announces, by family; the losses are in the modules that the specs name. No torch here."""
