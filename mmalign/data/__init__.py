"""What a record is: its schema, its checks, reading and writing it as JSON."""
