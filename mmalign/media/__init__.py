"""Images of records, read as if whoever made the file meant harm."""
