"""Who scores responses, and how several scores become one."""
