"""How plugins are found, loaded, looked up and tried."""
